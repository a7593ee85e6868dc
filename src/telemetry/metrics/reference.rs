//! All metrics with their labels, for documents, dashboards and alerts.

use super::{
    AdmissionOutcome, Metrics, OK, Overview, PullSecretLabels, Ready, RenewalLabels, RenewalOutcome,
    UpstreamCall,
    labels::{AdmissionLabels, CallLabels, CallResultLabels, OutcomeLabels},
};
use crate::problem::Reason;
use std::fmt;

/// The response of `/metrics` of a program in which everything has occurred: each metric has a sample for each value of
/// each of its labels, except for the label `watch`.
pub fn reference() -> Result<String, fmt::Error> {
    let metrics = Metrics::new();
    let reasons = || Reason::ALL.iter().map(|reason| reason.as_str());
    for reason in reasons().chain([OK]) {
        for &outcome in AdmissionOutcome::ALL {
            let _ = metrics
                .admissions
                .get_or_create(&AdmissionLabels { outcome, reason });
        }
        for &hop in UpstreamCall::ALL {
            let _ = metrics
                .upstream_calls
                .get_or_create(&CallResultLabels { hop, reason });
        }
        for &outcome in RenewalOutcome::ALL {
            let _ = metrics.renewals.get_or_create(&RenewalLabels { outcome, reason });
        }
    }
    for &outcome in AdmissionOutcome::ALL {
        let _ = metrics
            .admission_seconds
            .get_or_create(&OutcomeLabels { outcome });
    }
    for &hop in UpstreamCall::ALL {
        let _ = metrics.upstream_call_seconds.get_or_create(&CallLabels { hop });
    }
    let mut overview = Overview::default();
    for reason in reasons().chain(PullSecretLabels::OTHER_REASONS) {
        for &ready in Ready::ALL {
            for used in [true, false] {
                let labels = PullSecretLabels { ready, reason, used };
                overview.pull_secrets.insert(labels, 0);
            }
        }
    }
    metrics.set_overview(&overview);
    metrics.add_failing_watches("watch of Pods", 0);
    metrics.set_unreadable_objects("watch of Pods", 0);
    metrics.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A metric without a sample is absent from the response.
    #[test]
    fn the_reference_has_a_sample_of_each_metric() {
        let registered = format!("{:?}", Metrics::new()).matches("Descriptor {").count();
        let reference = reference().unwrap();
        let described = reference
            .lines()
            .filter(|line| line.starts_with("# HELP"))
            .count();
        assert!(registered > 15, "{registered}");
        assert_eq!(described, registered);
    }
}
