//! What the documents recommend, with the text of the documents.

use super::cluster::Cluster;
use chart::{NAME, helm::helm, kubectl::object_names, repository};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;
use testkit::namespace::TestNamespace;

/// The code block of a document that contains the text.
fn block(document: &str, text: &str) -> String {
    let document = repository("docs").join(document);
    let content = std::fs::read_to_string(&document).unwrap();
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in content.lines() {
        match &mut block {
            _ if line.trim_start().starts_with("```") => match block.take() {
                Some(block) => blocks.push(block),
                None => block = Some(String::new()),
            },
            Some(block) => *block += &format!("{line}\n"),
            None => {}
        }
    }
    let mut with_text = blocks.into_iter().filter(|block| block.contains(text));
    with_text
        .next()
        .unwrap_or_else(|| panic!("{} contains a block with {text}", document.display()))
}

/// Runs the command in a code block.
async fn run(cluster: &Cluster, block: &str) -> String {
    let command = block.strip_prefix("$ ").unwrap_or(block);
    let output = cluster.control_plane.shell(command).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command} fails ({error}); it needs the package jq"
    );
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn deployment(name: &str, account: &str, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"serviceAccountName": account, "containers": [{"name": "app", "image": image}]},
            },
        },
    })
}

/// docs/migrating.md
#[testkit::test]
async fn workloads_without_a_client_id_are_listed_for_a_namespace() {
    let cluster = Cluster::shared().await;
    // The manifests of the documents have the namespace `team-a` too, and another test creates it.
    let documented = "--namespace team-a";
    let command = block("migrating.md", "IN($ready[])");
    assert!(command.contains(documented), "{command}");
    let namespace = TestNamespace::create(&cluster.client, "without-client-id", json!({})).await;
    let command = command.replace(documented, &format!("--namespace {namespace}"));
    namespace
        .apply_service_account("app", &[("azure.workload.identity/client-id", "x")])
        .await;
    let create = format!("create --namespace {namespace}");
    for (name, account, image) in [
        ("ready", "app", "contoso.azurecr.io/app:1"),
        ("elsewhere", "default", "docker.io/app:1"),
        ("unready", "default", "contoso.azurecr.io/app:1"),
    ] {
        cluster.send(&create, deployment(name, account, image)).await;
    }
    let listed = run(&cluster, &command).await;
    assert_eq!(listed, "Deployment/unready: service account default");
}

/// docs/operations.md
#[testkit::test]
async fn restored_secrets_without_an_owner_are_listed() {
    let cluster = Cluster::shared().await;
    for secret in ["acr-pull-restored", "other"] {
        let create = cluster.kubectl("create secret docker-registry --docker-server a --docker-username b");
        create.args(["--docker-password", "c", secret]).succeed().await;
    }
    let label = format!("app.kubernetes.io/managed-by={NAME}");
    let label = cluster.kubectl("label secret acr-pull-restored").arg(label);
    label.succeed().await;
    let listed = run(&cluster, &block("operations.md", "ownerReferences == null")).await;
    assert_eq!(
        listed,
        "kubectl delete secret --namespace default acr-pull-restored"
    );
}

/// docs/install.md
#[testkit::test]
async fn a_generator_that_is_a_hook_exists_before_the_job_of_a_hook() {
    let cluster = Cluster::shared().await;
    let generators = repository("deploy/kustomize/generators");
    cluster
        .kubectl("apply --kustomize")
        .arg(generators)
        .succeed()
        .await;
    let established = "wait --for=condition=Established crd/acraccesstokens.generators.external-secrets.io";
    cluster.kubectl(established).succeed().await;
    let chart = chart_with_a_job();
    let template = chart.path().join("templates/generator.yaml");
    let generator = block("install.md", "helm.sh/hook-weight")
        + "spec: {registry: contoso.azurecr.io, auth: {workloadIdentity: {}}}\n";
    // Without the annotations, Helm creates the generator after the hooks.
    let ordinary = generator.lines().filter(|line| !line.contains("helm.sh"));
    let ordinary: Vec<_> = ordinary.collect();
    let ordinary = ordinary.join("\n").replace("annotations:", "annotations: {}");
    std::fs::write(&template, ordinary).unwrap();
    assert_eq!(
        generators_at_the_job(&cluster, chart.path(), "ordinary").await,
        [""; 0]
    );
    std::fs::write(&template, generator).unwrap();
    let generators = generators_at_the_job(&cluster, chart.path(), "hooks").await;
    assert_eq!(
        generators,
        ["acraccesstoken.generators.external-secrets.io/contoso"]
    );
}

/// A chart with a Job as hook, which cannot finish because the control plane has no node.
fn chart_with_a_job() -> TempDir {
    let chart = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    std::fs::create_dir(chart.path().join("templates")).unwrap();
    let description = json!({"apiVersion": "v2", "name": "hooks", "version": "0.1.0"});
    std::fs::write(chart.path().join("Chart.yaml"), description.to_string()).unwrap();
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate", "annotations": {"helm.sh/hook": "pre-install,pre-upgrade"}},
        "spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "app", "image": "contoso.azurecr.io/app:1"}],
        }}},
    });
    std::fs::write(chart.path().join("templates/job.yaml"), job.to_string()).unwrap();
    chart
}

/// Installs a chart, and returns the generators that exist when Helm gives up waiting for the Job.
async fn generators_at_the_job(cluster: &Cluster, chart: &Path, namespace: &str) -> Vec<String> {
    let install = helm("install")
        .arg("hooks")
        .arg(chart)
        .args(["--namespace", namespace]);
    let install = install.args(["--create-namespace", "--timeout", "3s"]);
    let error = install
        .env("KUBECONFIG", cluster.control_plane.kubeconfig())
        .fail()
        .await;
    assert!(error.contains("deadline exceeded"), "{error}");
    let get = cluster.kubectl("get acraccesstokens --output name --namespace");
    let names = get.arg(namespace).succeed().await;
    object_names(&names).map(str::to_owned).collect()
}
