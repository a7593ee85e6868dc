//! What the replicas of the webhook report about themselves: their readiness and their metrics, read through the API
//! server's proxy to Pods. The webhook's own Pods know whether they reach Entra and the registries, and no new endpoint
//! has to be opened to ask them.

use super::{
    api::{ApiServer, Unread, items, name, text},
    reason::Reason,
    report::Finding,
    settings::container,
    target::Target,
};
use crate::{problem, untrusted::UntrustedText};
use serde_json::Value;
use std::collections::BTreeMap;

const CHECK: &str = "replicas";
const PREFIX: &str = "acr_pull_webhook_";
/// The port of the admin listener, if the Deployment does not name one.
const DEFAULT_ADMIN_PORT: u64 = 8080;
/// Azure issues tokens that are valid from now on, so a larger difference makes them invalid.
const MAX_CLOCK_DIFFERENCE: f64 = 60.0;

/// Checks every running replica.
pub async fn check(api: &ApiServer, target: &Target, pods: &Result<Vec<Value>, Unread>) -> Vec<Finding> {
    let Ok(deployment) = &target.deployment else {
        return Vec::new();
    };
    let pods = match pods {
        Ok(pods) => pods
            .iter()
            .filter(|pod| text(pod, "/status/phase") == "Running")
            .collect::<Vec<_>>(),
        Err(unread) => return vec![unread.finding(CHECK, "the webhook's Pods")],
    };
    let port = admin_port(deployment);
    let mut findings = Vec::new();
    let mut counters = BTreeMap::new();
    for pod in &pods {
        let pod = name(pod);
        let base = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy", target.namespace);
        match api.text(&format!("{base}/metrics")).await {
            Ok(metrics) => {
                findings.extend(clock(pod, &metrics));
                add_calls(&metrics, &mut counters);
            }
            Err(Unread::Forbidden(message)) => {
                let message = format!(
                    "you may not read the metrics of the webhook's Pods (get pods/proxy): {}",
                    UntrustedText::new(&message)
                );
                return vec![Finding::unknown(CHECK, Reason::NotPermitted, message)];
            }
            Err(Unread::NotFound) => {}
            Err(Unread::Unreachable(cause)) => {
                let message = format!(
                    "the metrics of Pod {pod} could not be read: {}",
                    UntrustedText::new(&cause)
                );
                findings.push(Finding::warning(CHECK, Reason::NotChecked, message));
            }
        }
    }
    if !counters.is_empty() {
        findings.extend(egress(&counters));
    }
    findings
}

fn admin_port(deployment: &Value) -> u64 {
    let ports = container(deployment).map_or(&[][..], |container| items(container, "/ports"));
    let admin = ports.iter().find(|port| port["name"] == "admin");
    admin
        .and_then(|port| port["containerPort"].as_u64())
        .unwrap_or(DEFAULT_ADMIN_PORT)
}

/// The value of a metric without labels.
fn gauge(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines();
    lines.find_map(|line| {
        line.strip_prefix(PREFIX)?
            .strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

fn clock(pod: &str, metrics: &str) -> Option<Finding> {
    let ahead = gauge(metrics, "azure_clock_ahead_seconds")?;
    (ahead.abs() > MAX_CLOCK_DIFFERENCE).then(|| {
        let side = if ahead > 0.0 { "behind" } else { "ahead of" };
        let message = format!(
            "the clock of the node of Pod {pod} is {:.0} s {side} Azure's: correct the time synchronization of the \
             node",
            ahead.abs()
        );
        Finding::failed(CHECK, Reason::ClockSkew, message)
    })
}

/// The calls to one hop by their outcome.
#[derive(Debug, Default, PartialEq)]
struct Calls {
    answered: f64,
    unanswered: BTreeMap<String, f64>,
}

/// Adds the outcomes of calls that left the cluster, by hop.
fn add_calls(metrics: &str, counters: &mut BTreeMap<String, Calls>) {
    for line in metrics.lines() {
        let labels = line
            .strip_prefix(PREFIX)
            .and_then(|line| line.strip_prefix("upstream_requests_total{"));
        let Some((labels, value)) = labels.and_then(|rest| rest.split_once("} ")) else {
            continue;
        };
        let label = |name: &str| {
            let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim_matches('"'))
        };
        let (Some(hop), Some(reason), Ok(value)) =
            (label("hop"), label("reason"), value.trim().parse::<f64>())
        else {
            continue;
        };
        let calls = counters.entry(hop.to_owned()).or_default();
        if problem::Reason::parse(reason).is_some_and(is_unanswered) {
            *calls.unanswered.entry(reason.to_owned()).or_default() += value;
        } else {
            calls.answered += value;
        }
    }
}

/// Whether a call with this outcome probably did not reach the host, or received no complete response.
fn is_unanswered(reason: problem::Reason) -> bool {
    use problem::Reason;
    matches!(
        reason,
        Reason::EgressBlocked
            | Reason::ProxyFailed
            | Reason::CertificateNotTrusted
            | Reason::RegistryNotFound
            | Reason::EntraUnavailable
            | Reason::RegistryUnavailable
            | Reason::ManagedIdentityUnavailable
            | Reason::UpstreamTimeout
    )
}

/// Whether the replicas have ever been answered at each hop.
fn egress(counters: &BTreeMap<String, Calls>) -> Vec<Finding> {
    let silent = |(hop, calls): (&String, &Calls)| {
        let (reason, count) = calls.unanswered.iter().max_by(|a, b| a.1.total_cmp(b.1))?;
        (calls.answered == 0.0).then(|| {
            let message = format!(
                "no call of the webhook's Pods to the hop {hop} was answered ({count} calls ended with {reason}): \
                 check DNS, firewall, NetworkPolicy and proxy for the webhook's namespace"
            );
            Finding::failed(CHECK, Reason::EgressFailing, message)
        })
    };
    let failing: Vec<_> = counters.iter().filter_map(silent).collect();
    if !failing.is_empty() {
        return failing;
    }
    let hops: Vec<_> = counters.keys().map(String::as_str).collect();
    vec![Finding::ok(
        CHECK,
        format!(
            "calls of the webhook's Pods were answered at the hops {}",
            hops.join(", ")
        ),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn a_hop_that_never_answered_is_reported_with_its_reason() {
        let metrics = |lines: &[(&str, &str, u32)]| {
            let line = |(hop, reason, count): &(&str, &str, u32)| {
                format!("{PREFIX}upstream_requests_total{{hop=\"{hop}\",reason=\"{reason}\"}} {count}\n")
            };
            let mut counters = BTreeMap::new();
            add_calls(&lines.iter().map(line).collect::<String>(), &mut counters);
            egress(&counters).remove(0)
        };
        assert_eq!(
            metrics(&[("entra", "Ok", 1), ("entra", "EntraUnavailable", 9)]).reason,
            None
        );
        assert_eq!(metrics(&[("entra", "EntraRefused", 1)]).reason, None);
        let failing = metrics(&[("entra", "Ok", 5), ("registry_exchange", "EgressBlocked", 3)]);
        assert_eq!(failing.reason, Some("EgressFailing"));
        assert!(
            failing
                .message
                .contains("registry_exchange was answered (3 calls ended with EgressBlocked)")
        );
    }

    #[test]
    fn the_difference_of_the_clocks_is_read_from_the_webhooks_own_metrics() {
        let metrics = Metrics::new();
        let text = metrics.encode().unwrap();
        assert_eq!(gauge(&text, "leader"), Some(0.0), "{text}");
        let ahead = |seconds: i32| clock("w-1", &format!("{PREFIX}azure_clock_ahead_seconds {seconds}.0\n"));
        assert_eq!(ahead(59), None);
        assert!(ahead(-300).unwrap().message.contains("is 300 s ahead of Azure's"));
        assert!(ahead(300).unwrap().message.contains("is 300 s behind Azure's"));
    }
}
