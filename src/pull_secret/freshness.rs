//! Whether a pull secret can be used as it is.

use super::ACRPullSecretStatus;
use jiff::Timestamp;

/// Whether the Secret was written for these inputs and has more than a third of its life left.
pub fn is_fresh(status: &ACRPullSecretStatus, inputs_hash: &str, now: Timestamp) -> bool {
    let (Some(expires), Some(renewed)) = (&status.expiration_time, &status.last_renewal_time) else {
        return false;
    };
    let life = expires.0.duration_since(renewed.0);
    let left = expires.0.duration_since(now);
    status.inputs_hash.as_deref() == Some(inputs_hash) && status.secret_uid.is_some() && left > life / 3
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn a_secret_is_fresh_for_two_thirds_of_its_life_and_for_its_own_inputs() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let status = ACRPullSecretStatus {
            expiration_time: Some(Time(at(1_000))),
            last_renewal_time: Some(Time(at(100))),
            inputs_hash: Some("a".to_owned()),
            secret_uid: Some("u".to_owned()),
            ..Default::default()
        };
        assert!(is_fresh(&status, "a", at(100)));
        assert!(is_fresh(&status, "a", at(699)));
        assert!(!is_fresh(&status, "a", at(700)));
        assert!(!is_fresh(&status, "a", at(2_000)));
        assert!(!is_fresh(&status, "b", at(100)));
        assert!(!is_fresh(&ACRPullSecretStatus::default(), "a", at(100)));
        let unwritten = ACRPullSecretStatus {
            secret_uid: None,
            ..status
        };
        assert!(!is_fresh(&unwritten, "a", at(100)));
    }
}
