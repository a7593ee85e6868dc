//! Whether a pull secret can be used as it is.

use super::ACRPullSecret;
use jiff::{SignedDuration, Timestamp};

/// What a pull secret is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Made for these inputs, with more than a third of its life left.
    Fresh,
    /// Made for these inputs and still good for a pull, though it is time for another one, or a later
    /// try has failed: perhaps for other inputs, which were taken back.
    Usable,
    /// Of no use.
    Stale,
}

/// A Pod admitted now pulls within this, however slow its node is.
const TIME_TO_PULL: SignedDuration = SignedDuration::from_mins(5);

/// What the pull secret of this object is worth for these inputs.
pub fn freshness(object: &ACRPullSecret, inputs_hash: &str, now: Timestamp) -> Freshness {
    let Some(status) = &object.status else {
        return Freshness::Stale;
    };
    let (Some(expires), Some(renewed)) = (&status.expiration_time, &status.last_renewal_time) else {
        return Freshness::Stale;
    };
    let life = expires.0.duration_since(renewed.0);
    let left = expires.0.duration_since(now);
    let ours = status.inputs_hash.as_deref() == Some(inputs_hash) && status.secret_uid.is_some();
    // What is being deleted takes its Secret with it.
    if !ours || object.metadata.deletion_timestamp.is_some() {
        Freshness::Stale
    } else if left.is_positive() && left > life / 3 {
        match status.is_ready() {
            true => Freshness::Fresh,
            false => Freshness::Usable,
        }
    } else if left > TIME_TO_PULL {
        Freshness::Usable
    } else {
        Freshness::Stale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::{ACRPullSecretSpec, ACRPullSecretStatus, GeneratorReference};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn object(status: Option<ACRPullSecretStatus>) -> ACRPullSecret {
        let generator = GeneratorReference {
            kind: "ACRAccessToken".to_owned(),
            name: "contoso".to_owned(),
        };
        let service_account_name = Some("app".to_owned());
        let spec = ACRPullSecretSpec {
            generator,
            service_account_name,
            service_account_namespace: None,
        };
        let mut object = ACRPullSecret::new("x", spec);
        object.status = status;
        object
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
    fn a_good_secret_after_a_failed_try_serves_while_another_try_is_made() {
        let mut status = issued();
        status.set_ready(false, "EntraRefused", "", None, Time(at(1)));
        let object = object(Some(status));
        assert_eq!(freshness(&object, "a", at(2)), Freshness::Usable);
        assert_eq!(freshness(&object, "b", at(2)), Freshness::Stale);
        assert_eq!(freshness(&object, "a", at(8_700)), Freshness::Stale);
    }

    #[test]
    fn a_secret_is_fresh_for_two_thirds_of_its_life_and_usable_until_shortly_before_its_end() {
        let object = object(Some(issued()));
        for (second, expected) in [
            (0, Freshness::Fresh),
            (5_999, Freshness::Fresh),
            (6_000, Freshness::Usable),
            (8_699, Freshness::Usable),
            (8_700, Freshness::Stale),
            (20_000, Freshness::Stale),
        ] {
            assert_eq!(freshness(&object, "a", at(second)), expected, "{second}");
        }
    }

    #[test]
    fn a_secret_of_other_inputs_unwritten_or_going_away_is_stale() {
        let unwritten = ACRPullSecretStatus {
            secret_uid: None,
            ..issued()
        };
        let mut going = object(Some(issued()));
        going.metadata.deletion_timestamp = Some(Time(at(1)));
        assert_eq!(freshness(&object(Some(issued())), "b", at(0)), Freshness::Stale);
        assert_eq!(freshness(&object(Some(unwritten)), "a", at(0)), Freshness::Stale);
        assert_eq!(freshness(&object(None), "a", at(0)), Freshness::Stale);
        assert_eq!(freshness(&going, "a", at(0)), Freshness::Stale);
    }
}
