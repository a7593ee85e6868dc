//! The metrics about all pull secrets and the queue, which only the leader reports. The earliest expiration shows that
//! tokens are not renewed in time, whatever the cause.

use super::Reconciler;
use crate::{
    names::NamespacedName,
    problem::Reason,
    pull_secret::{ACRPullSecret, READY},
    telemetry::{Metrics, Overview, PullSecretLabels, Ready},
    watch::Item,
};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// Shorter than common scrape intervals.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Updates the metrics until the future is dropped, and then resets them to those of a replica that does not lead.
pub async fn report(reconciler: &Reconciler) {
    let metrics = &reconciler.upkeep.metrics;
    let _reset = ResetOnDrop(metrics.clone());
    let mut ticks = interval(REPORT_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        metrics.set_overview(&reconciler.overview());
    }
}

struct ResetOnDrop(Metrics);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        self.0.set_overview(&Overview::default());
    }
}

impl Reconciler {
    fn overview(&self) -> Overview {
        let (waiting, running) = self.queue.load();
        let mut overview = Overview {
            waiting,
            running,
            ..Overview::default()
        };
        for object in self.upkeep.issuer.pull_secrets().all() {
            if let Item(Ok(owner)) = &*object
                && let Some(key) = NamespacedName::of(&owner.metadata)
            {
                add(&mut overview, owner, self.usage.may_be_used(&key));
            }
        }
        overview
    }
}

/// Adds a pull secret.
fn add(overview: &mut Overview, owner: &ACRPullSecret, used: bool) {
    *overview.pull_secrets.entry(labels(owner, used)).or_default() += 1;
    if used && let Some(expires) = expiration(owner) {
        let first = overview
            .first_expiration
            .map_or(expires, |first| first.min(expires));
        overview.first_expiration = Some(first);
    }
}

/// The reason is that of a condition that is not True: Renewed, or Ready.
fn labels(owner: &ACRPullSecret, used: bool) -> PullSecretLabels {
    let conditions = owner.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let ready = conditions.iter().find(|condition| condition.type_ == READY);
    let ready = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => Ready::True,
        Some("False") => Ready::False,
        _ => Ready::Unknown,
    };
    let failed = conditions.iter().rfind(|condition| condition.status != "True");
    let reason = match failed {
        Some(condition) => known_reason(&condition.reason),
        None if ready == Ready::True => PullSecretLabels::ISSUED,
        None => PullSecretLabels::PENDING,
    };
    PullSecretLabels { ready, reason, used }
}

/// One of the program's own reasons, because others may write the status too.
fn known_reason(reason: &str) -> &'static str {
    let mut known = Reason::ALL.iter().map(|known| known.as_str());
    known
        .find(|known| *known == reason)
        .unwrap_or(PullSecretLabels::OTHER)
}

/// When the token of a working pull secret expires. A pull secret whose renewal was refused does not count: only its
/// users can resolve that, and its conditions explain it to them.
fn expiration(owner: &ACRPullSecret) -> Option<Timestamp> {
    let status = owner
        .status
        .as_ref()
        .filter(|status| status.is_ready() && !status.has_failed())?;
    Some(status.expiration_time.as_ref()?.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::{ACRPullSecretStatus, ISSUED};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A pull secret whose token expires then, and whose status is changed.
    fn issued(expires: i64, change: impl FnOnce(&mut ACRPullSecretStatus)) -> ACRPullSecret {
        let mut status = ACRPullSecretStatus {
            expiration_time: Some(Time(at(expires))),
            ..ACRPullSecretStatus::default()
        };
        status.set_ready(true, ISSUED, "", None, Time(at(0)));
        change(&mut status);
        ACRPullSecret::example(Some(status))
    }

    #[test]
    fn pull_secrets_are_counted_by_readiness_reason_and_use() {
        let refused = Reason::EntraRefused.as_str();
        let not_ready = |reason: &'static str| {
            move |s: &mut ACRPullSecretStatus| s.set_ready(false, reason, "", None, Time(at(0)))
        };
        let mut overview = Overview::default();
        for (owner, used) in [
            (issued(50, |_| ()), true),
            (issued(60, |_| ()), true),
            (issued(10, |_| ()), false),
            (
                issued(20, |s| s.set_not_renewed(refused, "", None, Time(at(0)))),
                true,
            ),
            (issued(30, not_ready(refused)), true),
            (issued(30, not_ready("SomebodyElsesReason")), true),
            (ACRPullSecret::example(None), true),
        ] {
            add(&mut overview, &owner, used);
        }
        let expected = [
            (Ready::True, "EntraRefused", true, 1),
            (Ready::True, "Issued", false, 1),
            (Ready::True, "Issued", true, 2),
            (Ready::False, "EntraRefused", true, 1),
            (Ready::False, "Other", true, 1),
            (Ready::Unknown, "Pending", true, 1),
        ];
        let expected =
            expected.map(|(ready, reason, used, count)| (PullSecretLabels { ready, reason, used }, count));
        assert_eq!(ISSUED, PullSecretLabels::ISSUED);
        assert_eq!(overview.pull_secrets, expected.into());
        assert_eq!(overview.first_expiration, Some(at(50)));
    }

    #[test]
    fn a_replica_that_no_longer_leads_reports_no_pull_secrets() {
        let metrics = Metrics::new();
        let series = || metrics.encode().unwrap().contains("pull_secrets{ready=\"True\"");
        let mut overview = Overview::default();
        add(&mut overview, &issued(50, |_| ()), true);
        metrics.set_overview(&overview);
        assert!(series());
        drop(ResetOnDrop(metrics.clone()));
        assert!(!series());
    }
}
