//! The flags of the leader election and their validation.

use super::record::MAX_LEASE_DURATION;
use crate::{deadline::duration, kubernetes::namespace_from_flag, start_error::StartError};
use std::time::Duration;

/// A shorter period would put load on the API server.
const MIN_RETRY_PERIOD: Duration = Duration::from_millis(100);

/// How the replicas elect their leader. Names and defaults are those of kube-controller-manager.
#[derive(Clone, Debug, clap::Args)]
pub struct LeaderElectionArgs {
    /// How long the lease may go without renewal before another replica takes over, in whole seconds
    #[arg(
        long = "leader-election-lease-duration",
        env = "ACR_PULL_WEBHOOK_LEADER_ELECTION_LEASE_DURATION",
        default_value = "15s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub lease_duration: Duration,

    /// How long the leader keeps working after its last renewal; must be shorter than the lease duration
    #[arg(
        long = "leader-election-renew-deadline",
        env = "ACR_PULL_WEBHOOK_LEADER_ELECTION_RENEW_DEADLINE",
        default_value = "10s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub renew_deadline: Duration,

    /// How often the leader renews the lease and the other replicas read it; must be shorter than the renew deadline
    #[arg(
        long = "leader-election-retry-period",
        env = "ACR_PULL_WEBHOOK_LEADER_ELECTION_RETRY_PERIOD",
        default_value = "2s",
        value_parser = duration,
        value_name = "DURATION"
    )]
    pub retry_period: Duration,

    /// Namespace of the Lease; by default the Pod's own
    #[arg(
        long = "leader-election-namespace",
        env = "ACR_PULL_WEBHOOK_LEADER_ELECTION_NAMESPACE",
        value_name = "NAMESPACE"
    )]
    pub namespace: Option<String>,
}

/// Validated settings of the leader election.
#[derive(Clone, Debug)]
pub struct Settings {
    pub(super) namespace: String,
    /// Unique for each process, so that a restarted process does not mistake its predecessor's lease for its own.
    pub(super) identity: String,
    pub(super) lease_duration: Duration,
    pub(super) renew_deadline: Duration,
    pub(super) retry_period: Duration,
}

impl LeaderElectionArgs {
    /// The settings of this process.
    pub fn settings(&self) -> Result<Settings, StartError> {
        self.check()?;
        Ok(Settings {
            namespace: namespace_from_flag("--leader-election-namespace", self.namespace.as_deref())?,
            identity: identity(),
            lease_duration: self.lease_duration,
            renew_deadline: self.renew_deadline,
            retry_period: self.retry_period,
        })
    }

    fn check(&self) -> Result<(), StartError> {
        let (lease, renew, retry) = (self.lease_duration, self.renew_deadline, self.retry_period);
        if lease.subsec_nanos() != 0 || lease > MAX_LEASE_DURATION {
            return Err(StartError::Flag(format!(
                "--leader-election-lease-duration is {lease:?}; it must be whole seconds and at most {MAX_LEASE_DURATION:?}"
            )));
        }
        if retry < MIN_RETRY_PERIOD {
            return Err(StartError::Flag(format!(
                "--leader-election-retry-period is {retry:?}; it must be at least {MIN_RETRY_PERIOD:?}"
            )));
        }
        if retry >= renew || renew >= lease {
            return Err(StartError::Flag(format!(
                "--leader-election-retry-period ({retry:?}) must be shorter than --leader-election-renew-deadline \
                 ({renew:?}), which must be shorter than --leader-election-lease-duration ({lease:?})"
            )));
        }
        Ok(())
    }
}

fn identity() -> String {
    let name = ["POD_NAME", "HOSTNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok().filter(|name| !name.is_empty()));
    format!(
        "{}_{:016x}",
        name.as_deref().unwrap_or("acr-pull-webhook"),
        fastrand::u64(..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        election: LeaderElectionArgs,
    }

    fn args(flags: &[&str]) -> Result<LeaderElectionArgs, String> {
        let flags = flags.iter().map(|f| format!("--leader-election-{f}"));
        Flags::try_parse_from(std::iter::once("test".to_owned()).chain(flags))
            .map(|flags| flags.election)
            .map_err(|e| e.to_string())
    }

    fn refusal(flags: &[&str]) -> String {
        args(flags).unwrap().check().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid() {
        let args = args(&[]).unwrap();
        args.check().unwrap();
        let seconds = |d: Duration| d.as_secs_f64();
        assert_eq!(
            (
                seconds(args.lease_duration),
                seconds(args.renew_deadline),
                seconds(args.retry_period)
            ),
            (15.0, 10.0, 2.0)
        );
    }

    #[test]
    fn inconsistent_timings_are_refused_and_the_error_names_the_flags() {
        for nonsense in [
            ["lease-duration=15s", "renew-deadline=15s", "retry-period=2s"],
            ["lease-duration=15s", "renew-deadline=1m", "retry-period=2s"],
            ["lease-duration=15s", "renew-deadline=10s", "retry-period=10s"],
            ["lease-duration=15s", "renew-deadline=10s", "retry-period=11s"],
            ["lease-duration=0s", "renew-deadline=0s", "retry-period=500ms"],
        ] {
            let refusal = refusal(&nonsense);
            for flag in ["lease-duration", "renew-deadline", "retry-period"] {
                let flag = format!("--leader-election-{flag}");
                assert!(refusal.contains(&flag), "{refusal} does not name {flag}");
            }
        }
        args(&[
            "lease-duration=3s",
            "renew-deadline=2s500ms",
            "retry-period=100ms",
        ])
        .unwrap()
        .check()
        .unwrap();
    }

    #[test]
    fn a_fractional_or_too_long_lease_duration_is_refused() {
        for duration in ["2500ms", "1h", "301s"] {
            let refusal = refusal(&[&format!("lease-duration={duration}"), "renew-deadline=2s"]);
            assert!(
                refusal.contains("--leader-election-lease-duration is"),
                "{refusal}"
            );
        }
    }

    #[test]
    fn a_retry_period_below_the_minimum_is_refused() {
        for period in ["0s", "99ms"] {
            let refusal = refusal(&[&format!("retry-period={period}")]);
            assert!(refusal.contains("--leader-election-retry-period is"), "{refusal}");
        }
    }

    #[test]
    fn an_invalid_duration_is_refused_with_an_example() {
        for text in ["", "15", "soon", "-2s"] {
            let refusal = args(&[&format!("retry-period={text}")]).unwrap_err();
            assert!(refusal.contains("such as 15s or 500ms"), "{refusal}");
        }
    }

    #[test]
    fn each_process_has_its_own_identity() {
        assert_ne!(identity(), identity());
    }
}
