//! When a pull secret is renewed, and when again after a failure. Pure functions.

use crate::pull_secret::{ACRPullSecret, renewal_share};
use jiff::{SignedDuration, Timestamp};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// The largest plausible difference between two clocks. A renewal time further in the future is invalid.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(10);
const MIN_BACKOFF: Duration = Duration::from_secs(5);
/// Long enough to limit the load, and short enough for a person who has fixed the cause and waits.
const MAX_BACKOFF: Duration = Duration::from_secs(120);
/// The longest delay that an upstream can request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);

/// How long until this pull secret is to be renewed. One that never had a token, or whose last attempt failed, is left
/// to the replica that admitted its Pod for `orphan_grace`.
pub fn until_due(owner: &ACRPullSecret, orphan_grace: Duration, now: Timestamp) -> Duration {
    let status = owner.status.as_ref();
    let expires = status.and_then(|s| s.expiration_time.as_ref());
    let renewed = status.and_then(|s| s.last_renewal_time.as_ref());
    let (Some(expires), Some(renewed)) = (expires, renewed) else {
        let last_transition = status
            .and_then(|s| s.conditions.first())
            .map(|c| &c.last_transition_time);
        let since = last_transition.or(owner.metadata.creation_timestamp.as_ref());
        let orphan_grace = SignedDuration::try_from(orphan_grace).unwrap_or(SignedDuration::MAX);
        return since.map_or(Duration::ZERO, |since| {
            time_until(now, saturating_add(since.0, orphan_grace))
        });
    };
    let lifetime = expires.0.duration_since(renewed.0);
    // No renewal can have written these times, so the token is renewed now.
    if renewed.0.duration_since(now) > MAX_CLOCK_SKEW || !lifetime.is_positive() {
        return Duration::ZERO;
    }
    let due = saturating_add(renewed.0, lifetime.mul_f64(renewal_share(owner, renewed.0)));
    time_until(now, due)
}

/// Adds with saturation: jiff's own operators panic on overflow.
fn saturating_add(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// How long to wait after another failure. The jitter is derived from `seed`.
pub fn backoff_delay(failures: u32, retry_after: Option<Duration>, seed: &str) -> Duration {
    let doubled = MIN_BACKOFF
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(MAX_BACKOFF);
    let jitter = doubled.mul_f64(0.25 * fraction(&(seed, failures)));
    (doubled + jitter).max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

fn time_until(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// A deterministic fraction in 0..=1 derived from `seed`.
pub fn fraction(seed: &impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::ACRPullSecretStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn owner(uid: &str, status: Option<ACRPullSecretStatus>) -> ACRPullSecret {
        let mut owner = ACRPullSecret::example(status);
        owner.metadata.uid = Some(uid.to_owned());
        owner.metadata.creation_timestamp = Some(Time(at(0)));
        owner
    }

    fn issued(lifetime: i64) -> Option<ACRPullSecretStatus> {
        Some(ACRPullSecretStatus {
            expiration_time: Some(Time(at(lifetime))),
            last_renewal_time: Some(Time(at(0))),
            ..Default::default()
        })
    }

    #[test]
    fn renewals_are_spread_by_uid_from_two_thirds_of_the_lifetime_on() {
        let mut all: Vec<_> = (0..1000)
            .map(|n| until_due(&owner(&n.to_string(), issued(900)), Duration::ZERO, at(0)).as_secs())
            .collect();
        all.sort_unstable();
        assert!(all[0] >= 600 && all[999] <= 690, "{} to {}", all[0], all[999]);
        // An even spread: no tenth of the time has twice its share.
        for tenth in 0..9 {
            let from = 600 + tenth * 9;
            let count = all.iter().filter(|s| (from..from + 9).contains(*s)).count();
            assert!(count < 200, "{count} of 1000 from {from}");
        }
        assert_eq!(
            until_due(&owner("x", issued(900)), Duration::ZERO, at(800)),
            Duration::ZERO
        );
    }

    #[test]
    fn a_status_with_impossible_times_is_renewed_immediately() {
        for (renewed, expires) in [(9_000, 0), (5, 5), (1_000_000, 1_009_000)] {
            let status = ACRPullSecretStatus {
                expiration_time: Some(Time(at(expires))),
                last_renewal_time: Some(Time(at(renewed))),
                ..Default::default()
            };
            assert_eq!(
                until_due(&owner("x", Some(status)), Duration::ZERO, at(10)),
                Duration::ZERO
            );
        }
    }

    proptest::proptest! {
        /// Users may write any times into a status.
        #[test]
        fn no_status_causes_a_panic(
            times in proptest::array::uniform4(proptest::option::of(Timestamp::MIN.as_second()..=Timestamp::MAX.as_second())),
            orphan_grace in proptest::num::u64::ANY,
        ) {
            let [expires, renewed, transition, created] = times.map(|second| second.map(|second| Time(at(second))));
            let mut status = ACRPullSecretStatus {
                expiration_time: expires,
                last_renewal_time: renewed,
                inputs_hash: Some("same".to_owned()),
                secret_uid: Some("uid".to_owned()),
                ..Default::default()
            };
            if let Some(transition) = transition {
                status.set_ready(false, "", "", None, transition);
            }
            let mut owner = owner("x", Some(status));
            owner.metadata.creation_timestamp = created;
            for now in [Timestamp::MIN, at(0), Timestamp::MAX] {
                until_due(&owner, Duration::from_secs(orphan_grace), now);
                crate::pull_secret::freshness(&owner, "same", now);
            }
        }
    }

    #[test]
    fn a_pull_secret_without_a_token_is_due_after_the_orphan_grace() {
        let orphan_grace = Duration::from_secs(15);
        assert_eq!(
            until_due(&owner("x", None), orphan_grace, at(5)),
            Duration::from_secs(10)
        );
        let mut failed = ACRPullSecretStatus::default();
        failed.set_ready(false, "EntraUnavailable", "", None, Time(at(20)));
        assert_eq!(
            until_due(&owner("x", Some(failed)), orphan_grace, at(21)),
            Duration::from_secs(14)
        );
        assert_eq!(
            until_due(&owner("x", None), orphan_grace, at(100)),
            Duration::ZERO
        );
    }

    #[test]
    fn the_delay_grows_with_failures_and_honours_retry_after() {
        let delays: Vec<_> = (0..10).map(|n| backoff_delay(n, None, "x")).collect();
        assert!(
            delays.windows(2).all(|w| w[0] <= w[1].mul_f64(1.25)),
            "{delays:?}"
        );
        assert!(
            delays[0] >= MIN_BACKOFF && delays[9] <= MAX_BACKOFF.mul_f64(1.25),
            "{delays:?}"
        );
        assert_eq!(
            backoff_delay(0, Some(Duration::from_secs(60)), "x"),
            Duration::from_secs(60)
        );
        assert_eq!(
            backoff_delay(0, Some(Duration::from_secs(86_400)), "x"),
            Duration::from_secs(300)
        );
        assert!(backoff_delay(u32::MAX, None, "x") <= MAX_BACKOFF.mul_f64(1.25));
    }
}
