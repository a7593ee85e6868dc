//! Whether a Pod is admitted when its pull secret could not be issued as planned.

use crate::problem::{Class, Problem, Reason};

/// What happens to a Pod whose token Azure does not give in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnUpstreamFailure {
    /// Admit it with its pull secret's name and a warning, and go on trying: the kubelet retries by itself.
    Admit,
    /// Refuse it.
    Deny,
}

/// What a Pod that is admitted can expect of its pull secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ensured {
    /// The Secret holds a token.
    Issued,
    /// Azure has not given the token yet; the webhook goes on trying.
    Pending(Problem),
    /// The Secret holds a token that does not open everything that its scope names.
    Incomplete(Problem),
}

impl OnUpstreamFailure {
    /// What a problem means for the Pod; an error refuses the Pod.
    pub fn judge(self, problem: Problem) -> Result<Ensured, Problem> {
        match problem.reason.class() {
            Class::Upstream if self == Self::Admit => Ok(Ensured::Pending(problem)),
            // The Secret is written, and the registry may grant the rest later.
            _ if problem.reason == Reason::ScopeNotGranted => Ok(Ensured::Incomplete(problem)),
            _ => Err(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_azure_failures_and_incomplete_tokens_admit_a_pod() {
        let judge = |policy: OnUpstreamFailure, reason| policy.judge(Problem::new(reason, "x"));
        for reason in Reason::ALL.iter().copied() {
            let is_upstream = reason.class() == Class::Upstream;
            let is_incomplete = reason == Reason::ScopeNotGranted;
            let admits = judge(OnUpstreamFailure::Admit, reason).is_ok();
            assert_eq!(admits, is_upstream || is_incomplete, "{reason:?}");
            assert_eq!(
                judge(OnUpstreamFailure::Deny, reason).is_ok(),
                is_incomplete,
                "{reason:?}"
            );
        }
    }
}
