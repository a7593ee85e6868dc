//! When a flight attempts its job again.

use crate::problem::Problem;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use std::{array, time::Duration};

/// The first retries are for callers that wait: most failures of a single call are gone a moment later, and an admission
/// has several seconds left.
const QUICK_DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// A service that asks for a longer wait than this is not retried while callers wait. The circuit breaker of a host asks
/// for a short wait when it opens, and for longer ones while an outage lasts.
const MAX_QUICK_RETRY_AFTER: Duration = Duration::from_secs(5);
/// The shortest time between two later attempts while Azure fails; it doubles after each failure.
pub(super) const MIN_DELAY: Duration = Duration::from_secs(5);
/// The doubling ends here: a caller that arrives later starts the next attempt.
const MAX_MIN_DELAY: Duration = Duration::from_secs(30);
/// The longest time between two attempts that no caller asks for.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(300);

/// The attempts that follow a transient failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// None: the caller has a schedule of its own.
    Never,
    /// Quick attempts, while callers wait.
    Quick,
    /// Quick attempts, and then attempts with growing delays until one succeeds.
    Unlimited,
}

/// The time until the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delay {
    /// Short enough for callers to wait for the attempt.
    Quick(Duration),
    /// The attempt starts after `latest`, or after `earliest` if a caller asks for it.
    Slow { earliest: Duration, latest: Duration },
}

/// The delays between the attempts of one flight.
pub(super) struct Schedule {
    quick: array::IntoIter<Duration, 2>,
    slow: ExponentialBackoff,
    min_delay: Duration,
}

impl Schedule {
    pub(super) fn new() -> Self {
        let slow = ExponentialBuilder::default()
            .with_min_delay(MIN_DELAY)
            .with_max_delay(MAX_DELAY)
            .with_jitter()
            .without_max_times();
        Self {
            quick: QUICK_DELAYS.into_iter(),
            slow: slow.build(),
            min_delay: MIN_DELAY,
        }
    }

    /// The delay after this failure. `None` means that no attempt follows.
    pub(super) fn next(&mut self, retries: Retries, problem: &Problem) -> Option<Delay> {
        if retries == Retries::Never || !problem.is_transient() {
            return None;
        }
        let quick = self.quick.next().and_then(|delay| quick_delay(problem, delay));
        match quick {
            Some(delay) => Some(Delay::Quick(delay)),
            None if retries == Retries::Quick => None,
            None => {
                let asked = problem.retry_after.unwrap_or_default();
                let earliest = asked.clamp(self.min_delay, MAX_DELAY);
                self.min_delay = (self.min_delay * 2).min(MAX_MIN_DELAY);
                let latest = self.slow.next().unwrap_or(MAX_DELAY).max(earliest);
                Some(Delay::Slow { earliest, latest })
            }
        }
    }
}

/// The delay before a quick retry, if the service can be expected to answer so soon.
fn quick_delay(problem: &Problem, delay: Duration) -> Option<Duration> {
    let asked = problem.retry_after.unwrap_or_default();
    (asked <= MAX_QUICK_RETRY_AFTER).then_some(delay.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Reason;

    fn problem(reason: Reason, retry_after: Option<u64>) -> Problem {
        Problem::new(reason, "as the test asked").retry_after(retry_after.map(Duration::from_secs))
    }

    #[test]
    fn a_transient_failure_is_retried_quickly_and_then_slowly() {
        let failure = problem(Reason::EntraUnavailable, None);
        let mut schedule = Schedule::new();
        let mut next = || schedule.next(Retries::Unlimited, &failure);
        assert_eq!(next(), Some(Delay::Quick(QUICK_DELAYS[0])));
        assert_eq!(next(), Some(Delay::Quick(QUICK_DELAYS[1])));
        for shortest in [5, 10, 20, 30, 30] {
            let Some(Delay::Slow { earliest, latest }) = next() else {
                panic!("a slow retry follows");
            };
            assert_eq!(earliest, Duration::from_secs(shortest));
            assert!((earliest..=MAX_DELAY * 2).contains(&latest), "{latest:?}");
        }
        let mut schedule = Schedule::new();
        let quick = |_| schedule.next(Retries::Quick, &failure).is_some();
        assert_eq!([0, 1, 2].map(quick), [true, true, false]);
    }

    #[test]
    fn a_refusal_and_a_caller_with_its_own_schedule_are_not_retried() {
        let refusal = problem(Reason::EntraRefused, None);
        assert_eq!(Schedule::new().next(Retries::Unlimited, &refusal), None);
        let failure = problem(Reason::EntraUnavailable, None);
        assert_eq!(Schedule::new().next(Retries::Never, &failure), None);
    }

    #[test]
    fn a_requested_wait_is_kept_and_a_long_one_ends_the_quick_retries() {
        let next = |asked| {
            Schedule::new().next(
                Retries::Unlimited,
                &problem(Reason::RegistryThrottled, Some(asked)),
            )
        };
        assert_eq!(next(0), Some(Delay::Quick(QUICK_DELAYS[0])));
        assert_eq!(next(4), Some(Delay::Quick(Duration::from_secs(4))));
        assert!(matches!(next(20), Some(Delay::Slow { .. })));
    }
}
