//! The metrics of two replicas in a real Prometheus: the dashboard's queries have answers, the numbers are right while
//! the leader changes, and the alerts work.

mod picture;
mod server;

use azure_emulator::{Effect, Endpoint, Fault};
use http::StatusCode;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use server::Prometheus;
use std::{path::PathBuf, time::Instant};
use tempfile::TempDir;
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    objects::{pod, pod_of, pull_secret_name, unnamed_pod},
    repository::root,
};

const IN_USE: &str = "sum(max by (ready, reason, used) (acr_pull_webhook_pull_secrets{used=\"true\"}))";
const NOT_READY: &str =
    "sum(max by (ready, reason, used) (acr_pull_webhook_pull_secrets{used=\"true\",ready!=\"True\"}))";
/// Nothing listens there.
const CLOSED: &str = "https://127.0.0.1:1/mutate";

/// The panels of the dashboard.
fn panels() -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("deploy/chart/files/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    dashboard["panels"].as_array().unwrap().clone()
}

/// The title and the query of each curve of the dashboard.
fn curves() -> Vec<(String, String)> {
    let mut curves = Vec::new();
    for panel in panels() {
        for target in panel["targets"].as_array().unwrap() {
            // As Grafana does: four scrape intervals, and more.
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            curves.push((panel["title"].as_str().unwrap().to_owned(), query));
        }
    }
    curves
}

/// Makes the API server call an address at which nothing listens.
async fn break_calls(env: &TestEnv) {
    let authority = Some(env.webhook.ca_pem.as_str());
    env.register_at(Some(env.label()), env.label(), CLOSED, authority)
        .await;
    eventually("the API server cannot call the webhook", async || {
        let refusal = env
            .team_a
            .namespace
            .dry_run_pod(&unnamed_pod("contoso"))
            .await
            .err()?;
        refusal
            .to_string()
            .contains("failed calling webhook")
            .then_some(())
    })
    .await;
}

/// Admits Pods although the webhook cannot be called.
async fn ignore_failures(env: &TestEnv) {
    let registrations = Api::<MutatingWebhookConfiguration>::all(env.client.clone());
    let webhooks = registrations.get(env.label()).await.unwrap().webhooks.unwrap();
    let changes: Vec<_> = (0..webhooks.len())
        .map(|n| json!({"op": "replace", "path": format!("/webhooks/{n}/failurePolicy"), "value": "Ignore"}))
        .collect();
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(json!(changes)).unwrap());
    registrations
        .patch(env.label(), &PatchParams::default(), &patch)
        .await
        .unwrap();
    eventually("the API server ignores the failure", async || {
        env.team_a
            .namespace
            .dry_run_pod(&unnamed_pod("contoso"))
            .await
            .ok()
    })
    .await;
}

/// Waits until each of these queries has an answer. Pods are created meanwhile.
async fn wait_for_answers(prometheus: &Prometheus, env: &TestEnv, curves: &[(String, String)]) {
    for (title, query) in curves {
        eventually(&format!("{title} has a value: {query}"), async || {
            let _ = env.team_a.namespace.dry_run_pod(&unnamed_pod("contoso")).await;
            let series = prometheus.query(query).await;
            series.iter().any(|(_, value)| value.is_finite()).then_some(())
        })
        .await;
    }
}

#[testkit::test]
async fn each_query_of_the_dashboard_has_an_answer() {
    let env = TestEnv::leading(&[], token_lifetime(30)).await;
    let other = env.replica().await;
    env.webhook.wait_until_leader().await;
    let prometheus = Prometheus::start(env.cluster.kubeconfig(), &[env.webhook.admin, other.admin]).await;
    let started = Instant::now();
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    namespace.wait_for_renewals(&name, 1).await;
    let (of_api_server, of_webhook): (Vec<_>, Vec<_>) = curves()
        .into_iter()
        .partition(|(_, query)| query.contains("apiserver_"));
    assert!(
        of_api_server.len() == 2 && of_webhook.len() > 20,
        "{of_webhook:?}"
    );
    wait_for_answers(&prometheus, &env, &of_webhook).await;
    let rules = prometheus.rules().await;
    assert!(rules.len() > 10, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        // The tokens of this test live for less than the ten minutes of this alert.
        let expected = if rule["name"] == "AcrPullWebhookTokensExpire" {
            "pending"
        } else {
            "inactive"
        };
        assert_eq!(rule["state"], expected, "{rule}");
    }

    eventually("both replicas were scraped for a minute", async || {
        for generator in ["contoso", "missing"] {
            let _ = namespace.dry_run_pod(&unnamed_pod(generator)).await;
        }
        let scrapes = "min(count_over_time(up{job=\"acr-pull-webhook\"}[5m]))";
        (prometheus.value(scrapes).await? >= 60.0).then_some(())
    })
    .await;

    break_calls(&env).await;
    wait_for_answers(&prometheus, &env, &of_api_server[..1]).await;
    eventually("the alert is pending", async || {
        let _ = namespace.dry_run_pod(&unnamed_pod("contoso")).await;
        let rules = prometheus.rules().await;
        let mut pending = rules.iter().filter(|rule| rule["state"] == "pending");
        pending
            .find(|rule| rule["name"] == "AcrPullWebhookCannotBeCalled")
            .map(drop)
    })
    .await;
    ignore_failures(&env).await;
    wait_for_answers(&prometheus, &env, &of_api_server[1..]).await;
    let folder = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    let file = std::env::var_os("DASHBOARD_SVG").map_or(folder.path().join("dashboard.svg"), PathBuf::from);
    picture::draw(&prometheus, &panels(), started.elapsed().as_secs_f64(), &file).await;
    let picture = std::fs::read_to_string(file).unwrap();
    assert!(!picture.contains("no data"), "each number has a value");
}

#[testkit::test]
async fn pull_secrets_are_counted_once_while_the_leader_changes() {
    let mut env = TestEnv::leading(&[], |_| ()).await;
    let other = env.replica().await;
    env.webhook.wait_until_leader().await;
    let kubeconfig = env.cluster.kubeconfig().to_owned();
    let prometheus = Prometheus::start(&kubeconfig, &[env.webhook.admin, other.admin]).await;
    for team in [&env.team_a, &env.team_b] {
        team.namespace.create_pod(&pod("app", "contoso")).await;
    }
    // The third does not get a token.
    env.create_workload("late", env.team_a.client_id, json!({})).await;
    let unavailable = Effect::status(StatusCode::SERVICE_UNAVAILABLE);
    env.azure
        .set_faults(&[Fault::new(Endpoint::EntraToken, unavailable)]);
    env.team_a.namespace.create_pod(&pod_of("late")).await;
    prometheus.wait_for_value(IN_USE, 3.0).await;
    prometheus.wait_for_value(NOT_READY, 1.0).await;
    prometheus
        .wait_for_value("count(acr_pull_webhook_leader)", 2.0)
        .await;
    prometheus
        .wait_for_value("sum(acr_pull_webhook_leader)", 1.0)
        .await;
    let reporting = "count(count by (instance) (acr_pull_webhook_pull_secrets))";
    prometheus.wait_for_value(reporting, 1.0).await;

    env.webhook.kill().await;
    // A new process could win the lease of the killed leader too.
    other.wait_until_leader().await;
    env.restart_webhook().await;
    prometheus
        .scrape(&kubeconfig, &[env.webhook.admin, other.admin])
        .await;
    let by_other = format!(
        "sum(acr_pull_webhook_pull_secrets{{instance=\"{}\",used=\"true\"}})",
        other.admin
    );
    prometheus.wait_for_value(&by_other, 3.0).await;
    prometheus.wait_for_value(reporting, 1.0).await;
    prometheus.wait_for_value(IN_USE, 3.0).await;
    let most = format!("max_over_time(({IN_USE})[10m:1s])");
    assert_eq!(prometheus.value(&most).await, Some(3.0));
}
