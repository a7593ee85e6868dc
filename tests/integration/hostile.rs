//! What strangers try: users of one namespace, Pods without rights, objects that no webhook expects. While they try, each
//! replica is ready, stays small, and admits the Pods of another namespace.

mod fairness;
mod objects;
mod others;
mod port;
mod tenants;
mod upkeep;

use super::{
    site::{Site, pull_secret_name, unnamed},
    webhook::Webhook,
};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
/// What a replica may hold of the machine's memory, whatever anybody tries.
const MAX_RESIDENT: u64 = 64 * MIB;

/// How long the admission of a Pod of team B takes.
async fn admission(site: &Site) -> Duration {
    let began = Instant::now();
    pull_secret_name(&site.create(&site.b.namespace, &unnamed("contoso")).await);
    began.elapsed()
}

/// Does what somebody tries, to its end. Meanwhile, and once more afterwards, each of these replicas is ready and small, and
/// a Pod of team B is admitted in at most twice the time of before, or in 300 ms.
async fn bears<T>(site: &Site, replicas: &[&Webhook], attempt: impl Future<Output = T>) -> T {
    admission(site).await;
    let mut before = Duration::ZERO;
    for _ in 0..5 {
        before = before.max(admission(site).await);
    }
    let limit = (before * 2).max(Duration::from_millis(300));
    let look = async || {
        for replica in replicas {
            assert_eq!(replica.admin_get("/readyz").await, (200, "ok".to_owned()));
            let resident = replica.resident();
            assert!(resident < MAX_RESIDENT, "{} MiB are resident", resident / MIB);
        }
        // Some that are slow may be the machine's fault, on which other tests run too; an attempt that harms others harms
        // each of them.
        let mut took = Duration::MAX;
        for _ in 0..10 {
            took = took.min(admission(site).await);
            if took <= limit {
                break;
            }
        }
        assert!(
            took <= limit,
            "an admission takes {took:?}, and {before:?} before"
        );
    };
    let mut attempt = std::pin::pin!(attempt);
    let outcome = loop {
        tokio::select! {
            outcome = &mut attempt => break outcome,
            () = async {
                look().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            } => {}
        }
    };
    look().await;
    outcome
}
