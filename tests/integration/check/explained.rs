//! Pods and workloads that `explain` explains.

use super::{
    installation::Installation,
    table::{Break, Fix, Row, assert_pulls, row},
};

const PRINTED: Fix = Fix::Printed(&[("GENERATOR", "contoso")]);
const ARGUMENTS: &str = "explain deployment/app --namespace TEAM_A";

/// A Deployment without Pods, whose annotations are ANNOTATIONS and whose template's metadata is TEMPLATE.
macro_rules! deployment {
    ($annotations:literal, $template:literal) => {
        Break::Shell(concat!(
            "kubectl delete deployment --namespace TEAM_A app --ignore-not-found
kubectl create --filename - <<'YAML'
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: TEAM_A, annotations: ",
            $annotations,
            "}
spec:
  replicas: 0
  selector: {matchLabels: {app: app}}
  template:
    metadata: ",
            $template,
            "
    spec:
      serviceAccountName: app
      containers: [{name: app, image: 'contoso.azurecr.io/team-a/app:1'}]
YAML"
        ))
    };
}

fn requests() -> Vec<Row> {
    vec![
        row(
            "the annotation on the Deployment",
            deployment!("{acr-pull.dev/access-token: contoso}", "{labels: {app: app}}"),
            "AnnotationOnWorkload",
            PRINTED,
        ),
        row(
            "a misspelt annotation",
            deployment!(
                "{}",
                "{labels: {app: app}, annotations: {acr-pull.dev/acess-token: contoso}}"
            ),
            "AnnotationMisspelt",
            PRINTED,
        ),
        row(
            "a label in place of the annotation",
            deployment!("{}", "{labels: {app: app, acr-pull.dev/access-token: contoso}}"),
            "AnnotationMisspelt",
            PRINTED,
        ),
        row(
            "no annotation",
            deployment!("{}", "{labels: {app: app}}"),
            "NotRequested",
            PRINTED,
        ),
    ]
}

fn images() -> Vec<Row> {
    vec![
        row(
            "an image outside the scope",
            Break::Shell(
                "kubectl patch acraccesstoken --namespace TEAM_A contoso --type merge \
                 --patch '{\"spec\": {\"scope\": \"repository:team-a/tools:pull\"}}'",
            ),
            "ImageOutsideScope",
            Fix::Shell(
                "kubectl patch acraccesstoken --namespace TEAM_A contoso --type merge --patch '{\"spec\": {\"scope\": \
                 null}}'",
            ),
        ),
        row(
            "an image of another registry",
            Break::Shell(
                "kubectl set image --namespace TEAM_A deployment/app app=docker.io/library/busybox:1",
            ),
            "RegistryNotUsed",
            Fix::Shell(
                "kubectl set image --namespace TEAM_A deployment/app app=contoso.azurecr.io/team-a/app:1",
            ),
        ),
        row(
            "a namespace that the registration does not select",
            Break::Shell("kubectl label namespace TEAM_A control-plane=true"),
            "NamespaceNotSelected",
            Fix::Shell("kubectl label namespace TEAM_A control-plane-"),
        ),
        row(
            "a missing object",
            Break::No,
            "ObjectNotFound",
            Fix::Shell("true"),
        )
        .with_arguments("explain pod/missing --namespace TEAM_A"),
    ]
}

#[testkit::test]
async fn each_workload_without_a_pull_secret_is_explained() {
    testkit::allow_more_time(std::time::Duration::from_secs(300));
    let installation = Installation::start().await;
    for row in requests().into_iter().chain(images()) {
        row.run(&installation, ARGUMENTS).await;
        assert_pulls(&installation, row.name).await;
    }
}

#[testkit::test]
async fn a_pod_that_was_created_without_the_webhook_is_created_again() {
    let installation = Installation::start().await;
    let namespace = &installation.env.team_a.namespace;
    installation
        .shell("kubectl delete mutatingwebhookconfiguration acr-pull-webhook")
        .await;
    testkit::eventually("the API server no longer calls the webhook", async || {
        let report = installation.check("--namespace TEAM_A --only=round-trip").await;
        report.has("NotCalled").then_some(())
    })
    .await;
    installation
        .shell(
            "kubectl create --filename - <<'YAML'
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: app, namespace: TEAM_A}
spec:
  replicas: 1
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}, annotations: {acr-pull.dev/access-token: contoso}}
    spec:
      serviceAccountName: app
      terminationGracePeriodSeconds: 0
      containers: [{name: app, image: 'contoso.azurecr.io/team-a/app:1'}]
YAML",
        )
        .await;
    let pod = async || {
        let pods = namespace.pods().list(&Default::default()).await.unwrap().items;
        pods.into_iter().find_map(|pod| pod.metadata.name)
    };
    let name = testkit::eventually("the ReplicaSet creates a Pod", pod).await;
    installation
        .shell("kubectl apply --server-side --filename deploy/kustomize/base/webhook.yaml")
        .await;
    installation
        .wait_until_well("--namespace TEAM_A contoso --service-account app")
        .await;
    let report = installation
        .run(&format!("explain pod/{name} --namespace TEAM_A"))
        .await;
    assert!(report.has("NotInjected") && report.code == 1, "{report:#?}");
    let command = report.commands().remove(0);
    assert!(command.starts_with("kubectl delete pod"), "{command}");
    installation.shell(&command).await;
    testkit::eventually("the new Pod is explained as well", async || {
        let name = pod().await?;
        let report = installation
            .run(&format!("explain pod/{name} --namespace TEAM_A"))
            .await;
        (report.code == 0).then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_manifest_is_explained_before_it_is_applied() {
    let installation = Installation::start().await;
    let explain = async |annotation: &str| {
        let manifest = format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: app, annotations: {{acr-pull.dev/access-token: {annotation}}}}}
spec: {{serviceAccountName: app, containers: [{{name: app, image: 'contoso.azurecr.io/team-a/app:1'}}]}}"
        );
        installation
            .run(&format!(
                "explain --file=<(cat <<'YAML'\n{manifest}\nYAML\n) --namespace TEAM_A"
            ))
            .await
    };
    let well = explain("contoso").await;
    assert_eq!(well.code, 0, "{well:#?}");
    assert!(
        well.json
            .to_string()
            .contains("the API server would create the Pod with acr-pull-contoso"),
        "{well:#?}"
    );
    let missing = explain("fabrikam").await;
    assert!(
        missing.has("GeneratorNotFound") && missing.has("RefusedByWebhook"),
        "{missing:#?}"
    );
    let opted_out = explain("none").await;
    assert!(
        opted_out.has("NotRequested") && opted_out.code == 0,
        "{opted_out:#?}"
    );
    assert!(
        installation
            .env
            .team_a
            .namespace
            .list_pull_secrets()
            .await
            .is_empty(),
        "nothing was created"
    );
}

#[testkit::test]
async fn the_default_of_a_namespace_is_explained() {
    let installation = Installation::start().await;
    let manifest = "--file=<(echo 'apiVersion: v1
kind: Pod
metadata: {name: app}
spec: {serviceAccountName: app, containers: [{name: app, image: contoso.azurecr.io/team-a/app:1}]}') --namespace TEAM_A";
    let explain = async || installation.run(&format!("explain {manifest}")).await;
    installation
        .shell("kubectl annotate namespace TEAM_A acr-pull.dev/access-token=contoso")
        .await;
    let report = explain().await;
    assert!(report.has("AnnotationMisspelt"), "{report:#?}");
    installation.shell(&report.commands()[0]).await;
    testkit::eventually("the default is explained as well", async || {
        let report = explain().await;
        let by_label = report
            .json
            .to_string()
            .contains("the entry namespaces.acr-pull.dev send the Pod");
        (report.code == 0 && by_label).then_some(())
    })
    .await;
}
