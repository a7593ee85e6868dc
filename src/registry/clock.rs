//! Compares Azure's clock with this machine's. Tokens expire by Azure's clock, and renewals are scheduled by this
//! machine's.

use crate::telemetry::Metrics;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// The clock skew that is logged as a warning. Entra accepts five minutes of skew between its clock and the clock of
/// the API server, which signs assertions. If one machine's clock is wrong, the clocks of other machines often are too.
const WARNING_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// The resolution of the `Date` header.
const DATE_RESOLUTION: SignedDuration = SignedDuration::from_secs(1);

/// The shortest time between two log lines. Users choose the registries, and a registry may send any date.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Converts Azure's times to this machine's, and logs clock skew. Clones share their state.
#[derive(Clone)]
pub struct AzureClock {
    is_skewed: Arc<AtomicBool>,
    last_logged: Arc<Mutex<Option<Instant>>>,
    metrics: Metrics,
}

impl AzureClock {
    /// A clock whose skew is not known yet.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            is_skewed: Arc::default(),
            last_logged: Arc::default(),
            metrics,
        }
    }

    /// Converts the expiry of a token from Azure's clock to this machine's. `date` is Azure's time in the response to a
    /// request sent at `sent`. The result is too early rather than too deadline_exceeded, by the duration of the call.
    pub fn local_expiry(&self, expires: Timestamp, sent: Timestamp, date: Option<Timestamp>) -> Timestamp {
        let Some(date) = date else {
            return expires;
        };
        let ahead = date.duration_since(sent);
        self.metrics.set_azure_clock_ahead(ahead);
        let is_skewed = ahead.abs() >= WARNING_SKEW;
        if self.is_skewed.load(Ordering::Relaxed) != is_skewed && self.may_log() {
            self.is_skewed.store(is_skewed, Ordering::Relaxed);
            if is_skewed {
                tracing::warn!(
                    seconds = ahead.as_secs(),
                    "Azure's clock is ahead of this machine's clock by this number of seconds (behind, if negative): tokens are \
                     still renewed in time; synchronize the clocks of nodes and control plane, because beyond five \
                     minutes Entra rejects the tokens that the API server signs"
                );
            } else {
                tracing::info!("Azure's clock and this machine's clock agree again");
            }
        }
        if ahead.abs() <= DATE_RESOLUTION {
            expires
        } else {
            expires.checked_sub(ahead).unwrap_or(expires)
        }
    }

    fn may_log(&self) -> bool {
        let mut last_logged = self.last_logged.lock();
        let may = last_logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL);
        if may {
            *last_logged = Some(Instant::now());
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_expires_by_the_local_clock_whatever_the_clock_skew() {
        let clock = AzureClock::new(Metrics::new());
        let at = |second| Timestamp::from_second(second).unwrap();
        for ahead in [-86_400, -600, -2, 0, 2, 600, 86_400] {
            let now = 1_700_000_000;
            let expires = clock.local_expiry(at(now + ahead + 10_800), at(now), Some(at(now + ahead)));
            assert_eq!(expires, at(now + 10_800), "{ahead}");
        }
        // The first skew was logged a moment ago.
        assert!(!clock.may_log());
        for date in [None, Some(at(2)), Some(at(4))] {
            assert_eq!(clock.local_expiry(at(17), at(3), date), at(17));
        }
    }
}
