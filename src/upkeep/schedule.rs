//! When a pull secret is renewed, and when again after a failure. Plain functions on plain values.

use crate::pull_secret::{ACRPullSecret, renewal_share};
use jiff::{SignedDuration, Timestamp};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// A time of renewal further ahead than clocks may differ.
const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(10);
const MIN_WAIT: Duration = Duration::from_secs(5);
/// Long enough to be calm, short enough for a person who has mended something and waits.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// How long until this pull secret is to be renewed. One that never had a token, or whose last try failed, is left
/// for so long to the replica that admitted its Pod.
pub fn until_due(owner: &ACRPullSecret, adopt: Duration, now: Timestamp) -> Duration {
    let status = owner.status.as_ref();
    let (expires, renewed) = (
        status.and_then(|s| s.expiration_time.as_ref()),
        status.and_then(|s| s.last_renewal_time.as_ref()),
    );
    let (Some(expires), Some(renewed)) = (expires, renewed) else {
        let told = status
            .and_then(|s| s.conditions.first())
            .map(|c| &c.last_transition_time);
        let since = told.or(owner.metadata.creation_timestamp.as_ref());
        let adopt = SignedDuration::try_from(adopt).unwrap_or(SignedDuration::MAX);
        return since.map_or(Duration::ZERO, |since| between(now, later(since.0, adopt)));
    };
    let life = expires.0.duration_since(renewed.0);
    // Nobody made a token then.
    if renewed.0.duration_since(now) > MAX_AHEAD || !life.is_positive() {
        return Duration::ZERO;
    }
    between(
        now,
        later(renewed.0, life.mul_f64(renewal_share(owner, renewed.0))),
    )
}

/// That much later, as far as times go. jiff's own operators panic beyond.
fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// How long to wait after one more failure.
pub fn back_off(failures: u32, asked: Option<Duration>, seed: &str) -> Duration {
    let doubled = MIN_WAIT
        .saturating_mul(2_u32.saturating_pow(failures))
        .min(MAX_WAIT);
    let jitter = doubled.mul_f64(0.25 * chance(&(seed, failures)));
    (doubled + jitter).max(asked.unwrap_or_default().min(Duration::from_secs(300)))
}

fn between(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(then.duration_since(now)).unwrap_or_default()
}

/// From 0 to 1, the same for the same.
pub fn chance(seed: &impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::{ACRPullSecretSpec, ACRPullSecretStatus, GeneratorReference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn owner(uid: &str, status: Option<ACRPullSecretStatus>) -> ACRPullSecret {
        let generator = GeneratorReference {
            kind: "ACRAccessToken".to_owned(),
            name: "contoso".to_owned(),
        };
        let spec = ACRPullSecretSpec {
            generator,
            service_account_name: None,
            service_account_namespace: None,
            service_account_of: None,
        };
        let mut owner = ACRPullSecret::new("x", spec);
        owner.metadata.uid = Some(uid.to_owned());
        owner.metadata.creation_timestamp = Some(Time(at(0)));
        owner.status = status;
        owner
    }

    fn issued(life: i64) -> Option<ACRPullSecretStatus> {
        Some(ACRPullSecretStatus {
            expiration_time: Some(Time(at(life))),
            last_renewal_time: Some(Time(at(0))),
            ..Default::default()
        })
    }

    #[test]
    fn renewal_comes_after_two_thirds_of_life_and_well_before_its_end_spread_by_uid() {
        let mut all: Vec<_> = (0..1000)
            .map(|n| until_due(&owner(&n.to_string(), issued(900)), Duration::ZERO, at(0)).as_secs())
            .collect();
        all.sort_unstable();
        assert!(all[0] >= 600 && all[999] <= 690, "{} to {}", all[0], all[999]);
        // Spread evenly: no tenth of the time has twice its share.
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
    fn a_status_that_nobody_could_have_written_is_renewed_over() {
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
        /// Users may write a status. Whatever times are in it, it costs no panic.
        #[test]
        fn no_status_makes_it_panic(
            times in proptest::array::uniform4(proptest::option::of(Timestamp::MIN.as_second()..=Timestamp::MAX.as_second())),
            adopt in proptest::num::u64::ANY,
        ) {
            let [expires, renewed, told, created] = times.map(|second| second.map(|second| Time(at(second))));
            let mut status = ACRPullSecretStatus {
                expiration_time: expires,
                last_renewal_time: renewed,
                inputs_hash: Some("same".to_owned()),
                secret_uid: Some("uid".to_owned()),
                ..Default::default()
            };
            if let Some(told) = told {
                status.set_ready(false, "", "", None, told);
            }
            let mut owner = owner("x", Some(status));
            owner.metadata.creation_timestamp = created;
            for now in [Timestamp::MIN, at(0), Timestamp::MAX] {
                until_due(&owner, Duration::from_secs(adopt), now);
                crate::pull_secret::freshness(&owner, "same", now);
            }
        }
    }

    #[test]
    fn a_pull_secret_without_a_token_is_adopted_after_a_while() {
        let adopt = Duration::from_secs(15);
        assert_eq!(
            until_due(&owner("x", None), adopt, at(5)),
            Duration::from_secs(10)
        );
        let mut failed = ACRPullSecretStatus::default();
        failed.set_ready(false, "EntraUnavailable", "", None, Time(at(20)));
        assert_eq!(
            until_due(&owner("x", Some(failed)), adopt, at(21)),
            Duration::from_secs(14)
        );
        assert_eq!(until_due(&owner("x", None), adopt, at(100)), Duration::ZERO);
    }

    #[test]
    fn failures_are_met_with_patience_and_the_wait_that_was_asked_for() {
        let waits: Vec<_> = (0..10).map(|n| back_off(n, None, "x")).collect();
        assert!(waits.windows(2).all(|w| w[0] <= w[1].mul_f64(1.25)), "{waits:?}");
        assert!(
            waits[0] >= MIN_WAIT && waits[9] <= MAX_WAIT.mul_f64(1.25),
            "{waits:?}"
        );
        assert_eq!(
            back_off(0, Some(Duration::from_secs(60)), "x"),
            Duration::from_secs(60)
        );
        assert_eq!(
            back_off(0, Some(Duration::from_secs(86_400)), "x"),
            Duration::from_secs(300)
        );
        assert!(back_off(u32::MAX, None, "x") <= MAX_WAIT.mul_f64(1.25));
    }
}
