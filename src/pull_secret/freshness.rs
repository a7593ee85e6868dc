//! Whether the token of a pull secret can be used as it is.

use super::{ACRPullSecret, WatchedPullSecret};
use jiff::{SignedDuration, Timestamp};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The state of a pull secret for some inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The token was made from these inputs, and is not due for renewal, or the leader is about to renew it.
    Fresh,
    /// The token was made from these inputs and still works, although the leader should have renewed it.
    Usable,
    /// There is no token for these inputs that lasts long enough.
    Stale,
}

/// Renewals are spread over this part of a token's life, which begins at two thirds: tokens that were made at the same
/// time are not renewed at the same time.
const RENEWAL_SPREAD: f64 = 0.1;
/// Admissions leave a due renewal to the leader for this part of the life: all replicas admit Pods of the same pull
/// secret, and each of them would renew it.
const LEADER_HEAD_START: f64 = 0.05;
/// A Pod that is admitted now pulls its images within this time, even on a slow node.
const TIME_TO_PULL: SignedDuration = SignedDuration::from_mins(5);

/// A working watch shows a change well within this time.
const DISPUTE_WINDOW: SignedDuration = SignedDuration::from_secs(60);

/// The freshness of a pull secret for these inputs.
pub fn freshness(object: &ACRPullSecret, inputs_hash: &str, now: Timestamp) -> Freshness {
    let Some(status) = &object.status else {
        return Freshness::Stale;
    };
    let (Some(expires), Some(renewed)) = (&status.expiration_time, &status.last_renewal_time) else {
        return Freshness::Stale;
    };
    let life = expires.0.duration_since(renewed.0);
    let left = expires.0.duration_since(now);
    let is_for_inputs = status.inputs_hash.as_deref() == Some(inputs_hash) && status.secret_uid.is_some();
    // The garbage collector deletes the Secret of an object that is being deleted.
    if !is_for_inputs || object.metadata.deletion_timestamp.is_some() {
        Freshness::Stale
    } else if left > TIME_TO_PULL
        && left > life.mul_f64(1.0 - renewal_share(object, renewed.0) - LEADER_HEAD_START)
    {
        Freshness::Fresh
    } else if left > TIME_TO_PULL {
        Freshness::Usable
    } else {
        Freshness::Stale
    }
}

/// The freshness of a pull secret, as the watch shows it.
pub fn freshness_of(known: Option<&WatchedPullSecret>, inputs_hash: &str) -> Freshness {
    decoded(known).map_or(Freshness::Stale, |object| {
        freshness(object, inputs_hash, Timestamp::now())
    })
}

/// Whether a pull secret was made a moment ago from other inputs than these.
pub fn is_disputed(known: Option<&WatchedPullSecret>, inputs_hash: &str) -> bool {
    let Some(object) = decoded(known) else {
        return false;
    };
    let is_recent = |renewed| Timestamp::now().duration_since(renewed) < DISPUTE_WINDOW;
    object.inputs_hash().is_some_and(|hash| hash != inputs_hash)
        && object.last_renewal().is_some_and(is_recent)
}

/// The pull secret, if it is about to be deleted.
pub fn marked_unused(known: Option<&WatchedPullSecret>) -> Option<&ACRPullSecret> {
    decoded(known).filter(|object| object.is_marked_unused())
}

/// The object, if it exists and could be decoded.
pub fn decoded(known: Option<&WatchedPullSecret>) -> Option<&ACRPullSecret> {
    known?.0.as_ref().ok()
}

/// The part of its life after which the token of this object is renewed.
pub fn renewal_share(object: &ACRPullSecret, renewed: Timestamp) -> f64 {
    let mut hasher = DefaultHasher::new();
    (&object.metadata.uid, renewed.as_nanosecond()).hash(&mut hasher);
    2.0 / 3.0 + RENEWAL_SPREAD * (hasher.finish() as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::ACRPullSecretStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn issued() -> ACRPullSecretStatus {
        let mut status = ACRPullSecretStatus {
            expiration_time: Some(Time(at(9_000))),
            last_renewal_time: Some(Time(at(0))),
            inputs_hash: Some("a".to_owned()),
            secret_uid: Some("u".to_owned()),
            ..Default::default()
        };
        status.set_ready(true, "Issued", "", None, Time(at(0)));
        status
    }

    #[test]
    fn a_failed_renewal_does_not_change_the_freshness() {
        let mut status = issued();
        status.set_not_renewed("EntraRefused", "", None, Time(at(1)));
        assert!(status.is_ready() && status.has_failed());
        let object = ACRPullSecret::example(Some(status));
        assert_eq!(freshness(&object, "a", at(2)), Freshness::Fresh);
        assert_eq!(freshness(&object, "b", at(2)), Freshness::Stale);
        assert_eq!(freshness(&object, "a", at(8_700)), Freshness::Stale);
    }

    #[test]
    fn a_token_is_fresh_then_usable_then_stale_before_it_expires() {
        for n in 0..100 {
            let mut object = ACRPullSecret::example(Some(issued()));
            object.metadata.uid = Some(n.to_string());
            let due = (9_000.0 * renewal_share(&object, at(0))) as i64;
            for (second, expected) in [
                (0, Freshness::Fresh),
                (6_000, Freshness::Fresh),
                (due + 1, Freshness::Fresh),
                (due + 440, Freshness::Fresh),
                (due + 460, Freshness::Usable),
                (8_699, Freshness::Usable),
                (8_700, Freshness::Stale),
                (20_000, Freshness::Stale),
            ] {
                assert_eq!(freshness(&object, "a", at(second)), expected, "{second}");
            }
        }
    }

    #[test]
    fn a_pull_secret_without_a_lasting_secret_is_stale() {
        let unwritten = ACRPullSecretStatus {
            secret_uid: None,
            ..issued()
        };
        let mut going = ACRPullSecret::example(Some(issued()));
        going.metadata.deletion_timestamp = Some(Time(at(1)));
        assert_eq!(
            freshness(&ACRPullSecret::example(Some(issued())), "b", at(0)),
            Freshness::Stale
        );
        assert_eq!(
            freshness(&ACRPullSecret::example(Some(unwritten)), "a", at(0)),
            Freshness::Stale
        );
        assert_eq!(
            freshness(&ACRPullSecret::example(None), "a", at(0)),
            Freshness::Stale
        );
        assert_eq!(freshness(&going, "a", at(0)), Freshness::Stale);
    }
}
