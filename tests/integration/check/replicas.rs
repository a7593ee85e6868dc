//! What the replicas report about themselves, read through the API server's proxy to Pods.

use super::installation::{Installation, Report};
use serde_json::json;
use testkit::{
    control_plane::NAMESPACE,
    eventually,
    objects::{pull_secret_name, unnamed_pod},
};

/// Makes the admin listener of the process that of the only Pod.
async fn publish_admin_listener(installation: &Installation) {
    let (address, port) = installation.admin().await;
    let deployment = format!("deployment --namespace {NAMESPACE} acr-pull-webhook");
    let port = json!([
        {"op": "replace", "path": "/spec/template/spec/containers/0/ports/1/containerPort", "value": port},
        {"op": "replace", "path": "/spec/replicas", "value": 1},
    ]);
    let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
    installation
        .shell(&format!(
            "kubectl patch {deployment} --type json --patch '{port}'
             kubectl rollout status {deployment} --timeout=60s
             pod=$(kubectl get pods --namespace {NAMESPACE} --output name --sort-by=.metadata.creationTimestamp | tail -n 1)
             kubectl patch --namespace {NAMESPACE} $pod --subresource=status --patch '{status}'"
        ))
        .await;
}

async fn found(installation: &Installation, reason: &str) -> Report {
    eventually(&format!("{reason} is found"), async || {
        let report = installation.check("--only=installation").await;
        report.has(reason).then_some(report)
    })
    .await
}

#[testkit::test]
async fn a_replica_without_egress_and_a_wrong_clock_are_found_by_its_metrics() {
    let installation = Installation::start().await;
    publish_admin_listener(&installation).await;
    let (azure, env) = (&installation.env.azure, &installation.env);
    let mut world = installation.azure.clone();
    world["unreachableHosts"] = json!(["login.microsoftonline.com"]);
    azure.apply(&world);
    env.team_a.namespace.create_pod(&unnamed_pod("contoso")).await;
    let report = found(&installation, "EgressFailing").await;
    let finding = report
        .findings()
        .into_iter()
        .find(|finding| finding["reason"] == "EgressFailing")
        .unwrap();
    let message = finding["message"].as_str().unwrap();
    assert!(
        message.contains("to the hop Entra was answered") && message.contains("ProxyFailed"),
        "{message}"
    );

    azure.apply(&installation.azure);
    eventually("the replica reports answers", async || {
        let report = installation.check("--only=installation").await;
        let answered = report
            .json
            .to_string()
            .contains("were answered at the hops Entra, RegistryExchange");
        (answered && !report.has("EgressFailing")).then_some(())
    })
    .await;

    let mut world = installation.azure.clone();
    world["clock"] = json!({"offset": "2m"});
    azure.apply(&world);
    let pod = env.team_b.namespace.create_pod(&unnamed_pod("contoso")).await;
    assert!(!pull_secret_name(&pod).is_empty());
    let report = found(&installation, "ClockSkew").await;
    assert_eq!(report.code, 1, "{report:#?}");
}
