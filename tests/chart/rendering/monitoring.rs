//! Alerts, dashboard and monitors. The metrics and labels that they and the documents name exist in the program.

use chart::{
    helm::{render, set},
    metrics::{Samples, grouped, selectors},
    prometheus::{alerts, alerts_file, dashboard, promtool, yaml},
    repository,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const AZURE: &str = "azmonitoring.coreos.com/v1";

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{value} has the field {field}"))
}

/// The names of all alerts.
fn alert_names() -> BTreeSet<String> {
    alerts()
        .iter()
        .map(|alert| text(alert, "alert").to_owned())
        .collect()
}

fn operations() -> String {
    std::fs::read_to_string(repository("docs/operations.md")).unwrap()
}

#[testkit::test]
async fn promtool_accepts_the_alerts_and_its_rule_tests_pass() {
    let check = promtool().args(["check", "rules", "--lint=all", "--lint-fatal"]);
    let report = check.arg(alerts_file()).succeed().await;
    let count = format!("SUCCESS: {} rules found", alerts().len());
    assert!(report.contains(&count), "{report}");
    let tests = repository("tests/prometheus/alerts-test.yaml");
    promtool().args(["test", "rules"]).arg(tests).succeed().await;
}

#[testkit::test]
async fn each_alert_fires_in_a_rule_test() {
    let file = yaml(repository("tests/prometheus/alerts-test.yaml"));
    let mut fired = BTreeSet::new();
    for test in file["tests"].as_array().unwrap() {
        for query in test["promql_expr_test"].as_array().unwrap() {
            for sample in query["exp_samples"].as_array().unwrap() {
                let labels = text(sample, "labels");
                fired.insert(
                    labels
                        .trim_start_matches("{alertname=\"")
                        .trim_end_matches("\"}")
                        .to_owned(),
                );
            }
        }
    }
    assert_eq!(fired, alert_names());
}

#[testkit::test]
async fn the_metrics_and_labels_of_each_alert_exist() {
    let known = Samples::known();
    let faults: Vec<_> = alerts()
        .iter()
        .flat_map(|alert| known.faults(text(alert, "expr")))
        .collect();
    assert_eq!(faults, [""; 0]);
}

/// `{{ $labels.reason }}` in an annotation is empty unless the expression keeps that label.
#[testkit::test]
async fn the_annotations_of_an_alert_use_labels_of_its_expression() {
    for alert in alerts() {
        let kept = grouped(text(&alert, "expr"));
        for (_, annotation) in alert["annotations"].as_object().unwrap() {
            for rest in annotation.as_str().unwrap().split("$labels.").skip(1) {
                let label = rest.split([' ', '}']).next().unwrap();
                assert!(kept.iter().any(|kept| kept == label), "{label} in {alert}");
            }
        }
    }
}

#[testkit::test]
async fn each_alert_links_to_its_section_of_the_documents() {
    let operations = operations();
    let sections: BTreeSet<_> = operations
        .lines()
        .filter_map(|line| line.strip_prefix("### AcrPullWebhook"))
        .map(|rest| format!("AcrPullWebhook{rest}"))
        .collect();
    assert_eq!(sections, alert_names());
    for alert in alerts() {
        let anchor = text(&alert, "alert").to_lowercase();
        let link = format!("https://acr-pull.dev/operations.html#{anchor}");
        assert_eq!(text(&alert["annotations"], "runbook_url"), link);
    }
}

#[testkit::test]
async fn the_metrics_and_labels_of_each_panel_exist() {
    let known = Samples::known();
    let (mut faults, mut ids) = (Vec::new(), BTreeSet::new());
    for panel in dashboard()["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = text(target, "expr");
            faults.extend(known.faults(query));
            let kept = grouped(query);
            for rest in text(target, "legendFormat").split("{{").skip(1) {
                let label = rest.split("}}").next().unwrap();
                if !kept.iter().any(|kept| kept == label) {
                    faults.push(format!("{query}: the legend uses {label}"));
                }
            }
        }
    }
    assert_eq!(faults, [""; 0]);
}

/// A metric that nobody can see would be forgotten.
#[testkit::test]
async fn each_metric_is_in_the_dashboard() {
    let panels = dashboard().to_string();
    let shown: BTreeSet<_> = selectors(&panels)
        .into_iter()
        .map(|selector| family(&selector.name))
        .collect();
    let known = Samples::parse(&acr_pull_webhook::metrics_reference().unwrap());
    let hidden: Vec<_> = known
        .0
        .keys()
        .map(|name| family(name))
        .filter(|name| !shown.contains(name))
        .collect();
    // Only the share of the lifetime that is left needs the start, and an alert shows it.
    assert_eq!(hidden, ["acr_pull_webhook_certificate_start_timestamp_seconds"]);
}

/// The name of a metric without the suffix of a histogram's sample.
fn family(sample: &str) -> String {
    let suffixes = ["_bucket", "_count", "_sum"];
    let stripped = suffixes.iter().find_map(|suffix| sample.strip_suffix(suffix));
    stripped.unwrap_or(sample).to_owned()
}

#[testkit::test]
async fn monitoring_is_absent_by_default() {
    let rendered = render::<String>([]).await;
    for kind in ["ServiceMonitor", "PodMonitor", "PrometheusRule"] {
        assert!(rendered.of_kind(kind).is_empty(), "{kind}");
    }
    assert_eq!(rendered.of_kind("ConfigMap").len(), 1);
}

#[testkit::test]
async fn both_monitors_are_available_for_the_prometheus_of_azure() {
    let rendered = render(set([
        "serviceMonitor.enabled=true",
        "podMonitor.enabled=true",
        &format!("serviceMonitor.apiVersion={AZURE}"),
        &format!("podMonitor.apiVersion={AZURE}"),
        "podMonitor.metricRelabelings[0].action=labeldrop",
        "podMonitor.metricRelabelings[0].regex=le",
    ]))
    .await;
    let monitors = [rendered.only("ServiceMonitor"), rendered.only("PodMonitor")];
    for monitor in monitors {
        assert_eq!(monitor["apiVersion"], AZURE);
    }
    let endpoint = &monitors[1]["spec"]["podMetricsEndpoints"][0];
    let relabelings = json!([{"action": "labeldrop", "regex": "le"}]);
    assert_eq!(
        *endpoint,
        json!({"port": "admin", "interval": "30s", "metricRelabelings": relabelings})
    );
    let ports = &rendered.only("Deployment")["spec"]["template"]["spec"]["containers"][0]["ports"];
    assert_eq!(ports[1]["name"], endpoint["port"]);
}

#[testkit::test]
async fn the_rules_and_the_dashboard_are_rendered_unchanged() {
    let rendered = render(set([
        "prometheusRule.enabled=true",
        "grafanaDashboard.enabled=true",
    ]))
    .await;
    let groups = &rendered.only("PrometheusRule")["spec"]["groups"];
    assert_eq!(*groups, yaml(alerts_file())["groups"]);
    let config_map = rendered.named("ConfigMap", "acr-pull-webhook-dashboard");
    assert_eq!(config_map["metadata"]["labels"]["grafana_dashboard"], "1");
    let content: Value = serde_json::from_str(text(&config_map["data"], "acr-pull-webhook.json")).unwrap();
    assert_eq!(content, dashboard());
}
