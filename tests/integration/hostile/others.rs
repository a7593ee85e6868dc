//! The others of an attack on the network: whose Pods are created meanwhile, and the kubelet, whose probes have a time-out.

use crate::{
    site::{Site, pull_secret_name, unnamed},
    webhook::Webhook,
};
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
/// Of each replica, whatever happens.
const MOST_MEMORY: u64 = 64 * MIB;
/// Slower than twice as slow as before is not too slow below this.
const UNNOTICED: Duration = Duration::from_millis(300);
/// Pods that are created before, and meanwhile.
const PODS: usize = 24;
/// From one to the next, meanwhile: an attack that goes in circles of 5 s is seen from each side.
const APART: Duration = Duration::from_millis(500);

/// Everybody else: team B, and the kubelet.
pub struct Others<'a> {
    site: &'a Site,
    replicas: Vec<&'a Webhook>,
    before: Duration,
}

// === impl Others ===

impl<'a> Others<'a> {
    /// They are used to how long a Pod takes.
    pub async fn of(site: &'a Site, more: impl IntoIterator<Item = &'a Webhook>) -> Self {
        let mut others = Self {
            site,
            replicas: std::iter::once(&site.webhook).chain(more).collect(),
            before: Duration::ZERO,
        };
        others.admitted().await;
        let mut times = Vec::new();
        for _ in 0..PODS {
            times.push(others.admitted().await);
        }
        others.before = median(times);
        others
    }

    async fn admitted(&self) -> Duration {
        let began = Instant::now();
        let pod = self
            .site
            .create(&self.site.b.namespace, &unnamed("contoso"))
            .await;
        pull_secret_name(&pod);
        began.elapsed()
    }

    /// Probes all replicas as a kubelet does, and looks at their memory.
    pub async fn probe(&self) {
        let client = reqwest::Client::builder()
            .no_proxy()
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(1))
            .build()
            .unwrap();
        for replica in &self.replicas {
            let ready = client
                .get(format!("http://{}/readyz", replica.admin))
                .send()
                .await;
            assert_eq!(ready.expect("a probe is answered in time").status(), 200);
            let resident = replica.resident();
            assert!(resident < MOST_MEMORY, "{} KiB are resident", resident / 1024);
        }
    }

    /// They notice nothing for as long as it takes to create some Pods. An attack that ends by itself has failed.
    pub async fn notice_nothing_of(&self, attack: impl Future<Output = ()>) {
        let seen = async {
            let mut times = Vec::new();
            let mut most = 0;
            let mut turns = tokio::time::interval(APART);
            for _ in 0..PODS {
                turns.tick().await;
                self.probe().await;
                times.push(self.admitted().await);
                self.probe().await;
                most = most.max(
                    self.replicas
                        .iter()
                        .map(|r| r.resident())
                        .max()
                        .unwrap_or_default(),
                );
            }
            let time = median(times);
            println!(
                "before {:?}, meanwhile {time:?}, {} MiB resident",
                self.before,
                most / MIB
            );
            let bound = UNNOTICED.max(2 * self.before);
            assert!(time <= bound, "a Pod takes {time:?} and took {:?}", self.before);
        };
        tokio::select! {
            () = seen => {}
            () = attack => panic!("the attack has ended"),
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
