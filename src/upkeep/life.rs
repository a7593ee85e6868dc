//! The first end of a token in use, as a metric: whatever the cause, it tells that tokens are not renewed in time.

use super::{Key, Use, Work};
use crate::{pull_secret::ACRPullSecret, telemetry::Metrics, watch::Item};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// More often than anybody scrapes it.
const BETWEEN: Duration = Duration::from_secs(10);

/// Measures until it is dropped; then this replica says nothing of it any more.
pub async fn measure(work: &Work) {
    let _silence = Silence(work.upkeep.metrics.clone());
    let mut ticks = interval(BETWEEN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        work.upkeep.metrics.set_first_expiration(work.first_expiration());
    }
}

struct Silence(Metrics);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.set_first_expiration(None);
    }
}

// === impl Work ===

impl Work {
    /// The first end of those that work and that Pods name, or may name.
    fn first_expiration(&self) -> Option<Timestamp> {
        let all = self.upkeep.issuer.store().state();
        let ends = all.iter().filter_map(|object| {
            let Item(Ok(owner)) = &**object else {
                return None;
            };
            let ends = expiration(owner)?;
            let key: Key = (owner.metadata.namespace.clone()?, owner.metadata.name.clone()?);
            (!matches!(self.usage.of(&key), Use::Unused(_))).then_some(ends)
        });
        ends.min()
    }
}

/// When the token ends of a pull secret that works. Where a renewal was refused, conditions tell its users why, who alone can
/// mend that.
fn expiration(owner: &ACRPullSecret) -> Option<Timestamp> {
    let status = owner
        .status
        .as_ref()
        .filter(|status| status.is_ready() && !status.has_failed())?;
    Some(status.expiration_time.as_ref()?.0)
}
