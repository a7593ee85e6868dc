//! Azure's clock against ours. Tokens end by theirs, and renewals are planned by ours.

use crate::telemetry::Metrics;
use jiff::{SignedDuration, Timestamp};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Entra bears five minutes between its clock and that of the API server, which signs assertions. A machine whose clock is off by
/// so much is often not the only one.
const WORTH_A_WARNING: SignedDuration = SignedDuration::from_secs(60);
/// `Date` tells whole seconds.
const WITHIN_RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

/// Registries are named by users, and one may say what it likes: it changes our mind in the log no more often than this.
const TOLD_ONCE_IN: Duration = Duration::from_secs(60);

/// What was last seen of Azure's clock; clones share it.
#[derive(Clone)]
pub struct AzureClock {
    is_off: Arc<AtomicBool>,
    told: Arc<Mutex<Option<Instant>>>,
    metrics: Metrics,
}

// === impl AzureClock ===

impl AzureClock {
    /// A clock that nobody has seen yet.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            is_off: Arc::default(),
            told: Arc::default(),
            metrics,
        }
    }

    /// When a token ends by our clock, that ends at `expires` by Azure's, which showed `date` in the answer to what we
    /// sent at `sent`. Too early rather than too late, by as long as the answer took.
    pub fn ours(&self, expires: Timestamp, sent: Timestamp, date: Option<Timestamp>) -> Timestamp {
        let Some(date) = date else {
            return expires;
        };
        let ahead = date.duration_since(sent);
        self.metrics.set_azure_clock_ahead(ahead);
        let off = ahead.abs() >= WORTH_A_WARNING;
        if self.is_off.load(Ordering::Relaxed) != off && self.may_tell() {
            self.is_off.store(off, Ordering::Relaxed);
            match off {
                true => tracing::warn!(
                    seconds = ahead.as_secs(),
                    "Azure's clock is ahead of this machine's by so many seconds (behind, where negative): tokens are \
                     renewed in time all the same; synchronize the clocks of nodes and control plane, for beyond five minutes Entra \
                     refuses what the API server signs"
                ),
                false => tracing::info!("Azure's clock and this machine's agree again"),
            }
        }
        match ahead.abs() <= WITHIN_RESOLUTION {
            true => expires,
            false => expires.checked_sub(ahead).unwrap_or(expires),
        }
    }

    fn may_tell(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|told| told.elapsed() >= TOLD_ONCE_IN);
        if may {
            *told = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_token_is_told_by_our_clock_whatever_azures_says() {
        let clock = AzureClock::new(Metrics::new());
        let at = |second| Timestamp::from_second(second).unwrap();
        for ahead in [-86_400, -600, -2, 0, 2, 600, 86_400] {
            let now = 1_700_000_000;
            let expires = clock.ours(at(now + ahead + 10_800), at(now), Some(at(now + ahead)));
            assert_eq!(expires, at(now + 10_800), "{ahead}");
        }
        // Each of them was off or not in turn.
        assert!(!clock.may_tell());
        for date in [None, Some(at(2)), Some(at(4))] {
            assert_eq!(clock.ours(at(17), at(3), date), at(17));
        }
    }
}
