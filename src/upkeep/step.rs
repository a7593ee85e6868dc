//! The decision what to do next for a pull secret. No clock, no API server.

use super::{POD_LIST_TIMEOUT, schedule, usage::Usage};
use crate::pull_secret::ACRPullSecret;
use jiff::Timestamp;
use std::time::Duration;

/// How long a pull secret without a token is left to the replica that admitted its Pod, after its creation or its last
/// status change. If that replica dies during the admission, the Pod waits no longer than this.
pub const ORPHAN_GRACE: Duration = Duration::from_secs(15);

/// What upkeep knows about a pull secret, apart from the object itself.
#[derive(Clone, Copy, Debug)]
pub struct Knowledge {
    /// Whether Pods use the pull secret.
    pub usage: Usage,
    /// Whether the leadership is so new that the Pods may still be listed.
    pub is_pod_list_pending: bool,
    /// The remaining back-off after failures.
    pub backoff: Option<Duration>,
    /// Whether an unused pull secret is kept, because the last list of Pods found one that names it without the label of
    /// the webhook, such as a copy by `kubectl debug`.
    pub is_kept: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until the object changes.
    Ignore,
    /// Nothing for this time.
    Wait(Duration),
    /// Announce the deletion of a pull secret that no Pod of the watch has named for this time, or delete it.
    Collect {
        /// How long no Pod of the watch has named it.
        unused_for: Duration,
        /// After which time the token of a pull secret that is kept can be renewed.
        renewal_in: Option<Duration>,
    },
    /// Renew the token.
    Renew,
    /// Repair the Secret if that was requested. The token is due after this time.
    Repair(Duration),
}

/// The next step for this pull secret.
pub fn next_step(owner: &ACRPullSecret, known: Knowledge, now: Timestamp) -> Step {
    if owner.metadata.deletion_timestamp.is_some() {
        return Step::Ignore;
    }
    let due_in = schedule::until_due(owner, ORPHAN_GRACE, now);
    let renewal_in = due_in.max(known.backoff.unwrap_or_default());
    match known.usage {
        Usage::Unused(_) if known.is_kept && renewal_in.is_zero() => return Step::Renew,
        Usage::Unused(unused_for) => {
            return Step::Collect {
                unused_for,
                renewal_in: known.is_kept.then_some(renewal_in),
            };
        }
        Usage::Unknown if known.is_pod_list_pending => return Step::Wait(POD_LIST_TIMEOUT),
        // While the Pods are unknown, an unneeded renewal does no harm.
        Usage::Unknown | Usage::Used => {}
    }
    if let Some(left) = known.backoff {
        return Step::Wait(left);
    }
    if due_in.is_zero() {
        Step::Renew
    } else {
        Step::Repair(due_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::ACRPullSecretStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    const LIFETIME: i64 = 9000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A pull secret that was created at 0 and, if it has a token, issued at 0.
    fn owner(has_token: bool) -> ACRPullSecret {
        let status = has_token.then(|| ACRPullSecretStatus {
            expiration_time: Some(Time(at(LIFETIME))),
            last_renewal_time: Some(Time(at(0))),
            ..ACRPullSecretStatus::default()
        });
        let mut owner = ACRPullSecret::example(status);
        owner.metadata.creation_timestamp = Some(Time(at(0)));
        owner
    }

    fn step(owner: &ACRPullSecret, usage: Usage, second: i64) -> Step {
        let known = Knowledge {
            usage,
            is_pod_list_pending: false,
            backoff: None,
            is_kept: false,
        };
        next_step(owner, known, at(second))
    }

    #[test]
    fn a_token_is_renewed_when_it_is_due_and_repaired_before() {
        for usage in [Usage::Used, Usage::Unknown] {
            assert!(matches!(step(&owner(true), usage, 1), Step::Repair(_)));
            assert_eq!(step(&owner(true), usage, LIFETIME - 1), Step::Renew);
        }
    }

    #[test]
    fn a_pull_secret_without_a_token_is_adopted_after_the_grace_period() {
        let grace = i64::try_from(ORPHAN_GRACE.as_secs()).unwrap();
        assert!(matches!(
            step(&owner(false), Usage::Used, grace - 1),
            Step::Repair(_)
        ));
        assert_eq!(step(&owner(false), Usage::Used, grace), Step::Renew);
    }

    #[test]
    fn an_unused_pull_secret_is_collected_and_never_renewed() {
        let unused = Duration::from_secs(7);
        for second in [1, LIFETIME - 1, 2 * LIFETIME] {
            let step = step(&owner(true), Usage::Unused(unused), second);
            let collect = Step::Collect {
                unused_for: unused,
                renewal_in: None,
            };
            assert_eq!(step, collect);
        }
    }

    #[test]
    fn an_unused_pull_secret_that_is_kept_is_renewed_when_it_is_due() {
        let mut known = Knowledge {
            usage: Usage::Unused(Duration::from_secs(7)),
            is_pod_list_pending: false,
            backoff: None,
            is_kept: true,
        };
        let early = next_step(&owner(true), known, at(1));
        assert!(
            matches!(early, Step::Collect { renewal_in: Some(due), .. } if !due.is_zero()),
            "{early:?}"
        );
        assert_eq!(next_step(&owner(true), known, at(LIFETIME - 1)), Step::Renew);
        let left = Duration::from_secs(3);
        known.backoff = Some(left);
        let late = next_step(&owner(true), known, at(LIFETIME - 1));
        assert!(
            matches!(late, Step::Collect { renewal_in: Some(due), .. } if due == left),
            "{late:?}"
        );
    }

    #[test]
    fn a_deleted_pull_secret_is_ignored() {
        let mut owner = owner(true);
        owner.metadata.deletion_timestamp = Some(Time(at(1)));
        for usage in [Usage::Used, Usage::Unknown, Usage::Unused(Duration::ZERO)] {
            assert_eq!(step(&owner, usage, LIFETIME), Step::Ignore);
        }
    }

    #[test]
    fn a_new_leader_waits_for_the_pods_and_a_failed_renewal_for_its_backoff() {
        let known = Knowledge {
            usage: Usage::Unknown,
            is_pod_list_pending: true,
            backoff: None,
            is_kept: false,
        };
        let due = at(LIFETIME - 1);
        assert_eq!(next_step(&owner(true), known, due), Step::Wait(POD_LIST_TIMEOUT));
        let left = Duration::from_secs(3);
        for usage in [Usage::Used, Usage::Unknown] {
            let known = Knowledge {
                usage,
                is_pod_list_pending: false,
                backoff: Some(left),
                is_kept: false,
            };
            assert_eq!(next_step(&owner(true), known, due), Step::Wait(left));
        }
    }
}
