//! The metric of the earliest token expiration: it shows that tokens are not renewed in time, whatever the cause.

use super::{Reconciler, Usage};
use crate::{names::NamespacedName, pull_secret::ACRPullSecret, telemetry::Metrics, watch::Item};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Shorter than common scrape intervals.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Updates the metric until the future is dropped, and then resets it to unknown.
pub async fn report_first(reconciler: &Reconciler) {
    let _reset = ResetOnDrop(reconciler.upkeep.metrics.clone());
    let mut ticks = interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        reconciler
            .upkeep
            .metrics
            .set_first_expiration(reconciler.first_expiration());
    }
}

struct ResetOnDrop(Metrics);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        self.0.set_first_expiration(None);
    }
}

impl Reconciler {
    /// The earliest expiration among the working pull secrets that Pods use or may use.
    fn first_expiration(&self) -> Option<Timestamp> {
        let all = self.upkeep.issuer.pull_secrets().all();
        let expirations = all.iter().filter_map(|object| {
            let Item(Ok(owner)) = &**object else {
                return None;
            };
            let expiration = expiration(owner)?;
            let key = NamespacedName::of(&owner.metadata)?;
            (!matches!(self.usage.usage_of(&key), Usage::Unused(_))).then_some(expiration)
        });
        expirations.min()
    }
}

/// When the token of a working pull secret expires. A pull secret whose renewal was refused does not count: only its
/// users can resolve that, and its conditions explain it to them.
fn expiration(owner: &ACRPullSecret) -> Option<Timestamp> {
    let status = owner
        .status
        .as_ref()
        .filter(|status| status.is_ready() && !status.has_failed())?;
    Some(status.expiration_time.as_ref()?.0)
}
