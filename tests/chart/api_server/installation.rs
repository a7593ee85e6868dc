//! Installing, upgrading and uninstalling.

use super::{
    cluster::Cluster,
    release::{CRDS, Release},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chart::{
    NAME,
    helm::{self, render, set},
    repository,
};
use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use testkit::{control_plane::ControlPlane, eventually};

const NO_FLAGS: [&str; 0] = [];
const SECRET_PATH: &str = "/mutate/0123456789abcdef0123456789abcdef01234567";

/// The changes by which the webhook publishes its path and its authority in an entry of the registration.
fn published(cluster: &Cluster, entry: usize) -> Value {
    let client = format!("/webhooks/{entry}/clientConfig");
    let authority = STANDARD.encode(cluster.control_plane.authority());
    json!([
        {"op": "add", "path": format!("{client}/caBundle"), "value": authority},
        {"op": "add", "path": format!("{client}/service/path"), "value": SECRET_PATH},
    ])
}

async fn crds(cluster: &Cluster) -> Vec<String> {
    let crds = cluster.all::<CustomResourceDefinition>();
    let list = crds.list(&ListParams::default()).await.unwrap();
    list.iter().map(ResourceExt::name_any).collect()
}

async fn assert_crds_exist(cluster: &Cluster) {
    let found = crds(cluster).await;
    for crd in CRDS {
        assert!(
            found.iter().any(|name| name == crd),
            "{crd} is not among {found:?}"
        );
    }
}

/// `helm test` with the status that a kubelet reports when the program in the Pod has succeeded.
async fn test(release: &Release) {
    let pod = format!("{NAME}-test");
    let kubelet = async {
        let pods = release.namespaced::<Pod>(NAME);
        eventually("Helm creates the Pod of the test", async || {
            pods.get_opt(&pod).await.unwrap()
        })
        .await;
        let succeeded = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        let params = PatchParams::default();
        pods.patch_status(&pod, &params, &succeeded).await.unwrap();
    };
    tokio::join!(release.test(), kubelet);
    let left = release.objects().await;
    let left: Vec<_> = left.iter().filter(|object| object.contains(&pod)).collect();
    assert!(left.is_empty(), "the test leaves {left:?}");
}

#[testkit::test]
async fn both_versions_of_helm_install_test_upgrade_and_uninstall() {
    for version in helm::Version::ALL {
        let release = Release::none_of(version).await;
        release.install(set(["crds.generators=true"])).await;
        let change = published(&release, 0);
        release.patch_registration(NAME, NAME, change).await;
        test(&release).await;
        let flags = set(["crds.generators=true", "webhook.timeoutSeconds=20"]);
        release.upgrade(flags).await;
        let entry = release.registration(NAME).await.webhooks.unwrap().remove(0);
        assert_eq!(entry.timeout_seconds, Some(20));
        let service = entry.client_config.service.unwrap();
        assert_eq!(service.path.as_deref(), Some(SECRET_PATH), "{version:?}");
        test(&release).await;
        release.uninstall().await;
        release.wait_until_no_object_is_left().await;
        assert_crds_exist(&release).await;
    }
}

#[testkit::test]
async fn an_upgrade_keeps_published_fields_and_uninstall_leaves_only_crds() {
    let release = Release::none_and_no_crds().await;
    release.install(NO_FLAGS).await;
    release
        .patch_registration(NAME, NAME, published(&release, 0))
        .await;
    release.upgrade(set(["webhook.timeoutSeconds=20"])).await;
    let entry = release.registration(NAME).await.webhooks.unwrap().remove(0);
    assert_eq!(entry.timeout_seconds, Some(20));
    let client = entry.client_config;
    assert_eq!(client.service.unwrap().path.as_deref(), Some(SECRET_PATH));
    let authority = release.control_plane.authority();
    assert_eq!(client.ca_bundle.unwrap().0, authority.as_bytes());
    release.uninstall().await;
    release.wait_until_no_object_is_left().await;
    assert_crds_exist(&release).await;
}

#[testkit::test]
async fn an_upgrade_can_rename_the_registration() {
    let release = Release::none().await;
    let mut flags = set(["crds.acrPullSecrets=false", "crds.generators=false"]);
    release.install(&flags).await;
    flags.extend(set(["webhook.configurationName=zz-last"]));
    release.upgrade(&flags).await;
    let registrations = release.all::<MutatingWebhookConfiguration>();
    let registrations = registrations.list(&Default::default()).await.unwrap();
    let names: Vec<_> = registrations.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["zz-last"]);
    release.uninstall().await;
}

/// As Argo CD compares. The admissions enforcer of AKS requires two conditions and adds them to any other webhook.
#[testkit::test]
async fn published_fields_are_not_a_difference_for_server_side_apply() {
    let release = Release::none().await;
    let registration = render(["--show-only", "templates/webhook.yaml"])
        .await
        .without_foreign_kinds();
    let apply = "apply --server-side --field-manager argocd-controller";
    release.send(apply, &registration).await;
    for entry in 0..2 {
        release
            .patch_registration(NAME, NAME, published(&release, entry))
            .await;
    }
    for entry in release.registration(NAME).await.webhooks.unwrap() {
        assert_eq!(
            entry.client_config.service.unwrap().path.as_deref(),
            Some(SECRET_PATH)
        );
        let conditions = entry.namespace_selector.unwrap().match_expressions.unwrap();
        let keys: Vec<_> = conditions
            .iter()
            .map(|condition| condition.key.as_str())
            .collect();
        let enforced = ["control-plane", "kubernetes.azure.com/managedby"];
        assert!(keys.ends_with(&enforced), "{keys:?}");
    }
    let diff = release.kubectl("diff --server-side --field-manager argocd-controller --filename -");
    assert_eq!(diff.input(registration).succeed().await, "");
}

#[testkit::test]
async fn helm_takes_over_a_kustomize_deployment_and_reinstalls() {
    let release = Release::none_and_no_crds().await;
    let base = repository("deploy/kustomize/base");
    let crds = release
        .kubectl("create --kustomize")
        .arg(repository("deploy/kustomize/crds"));
    crds.succeed().await;
    release.kubectl("apply --kustomize").arg(&base).succeed().await;
    release
        .patch_registration(NAME, NAME, published(&release, 1))
        .await;
    // The next apply, of another option, leaves what the webhook has published.
    let manifests = release.kubectl("kustomize").arg(&base).succeed().await;
    let changed = manifests.replace("timeoutSeconds: 10", "timeoutSeconds: 11");
    assert_ne!(changed, manifests);
    release.send("apply", changed).await;
    let entry = release.registration(NAME).await.webhooks.unwrap().remove(1);
    assert_eq!(entry.timeout_seconds, Some(11));
    assert_eq!(
        entry.client_config.service.unwrap().path.as_deref(),
        Some(SECRET_PATH)
    );

    release.install(["--take-ownership", "--force-conflicts"]).await;
    release.uninstall().await;
    release.install(NO_FLAGS).await;
    let crd: CustomResourceDefinition = release.all().get(CRDS[0]).await.unwrap();
    assert_eq!(crd.labels()["app.kubernetes.io/managed-by"], "Helm");
    release.uninstall().await;
}

#[testkit::test]
async fn the_crds_of_external_secrets_operator_are_left_unchanged() {
    let release = Release::none_and_no_crds().await;
    let [_, access_tokens, cluster_generators] = CRDS;
    let crds = release.all::<CustomResourceDefinition>();
    let ours =
        std::fs::read_to_string(repository("deploy/kustomize/generators/acraccesstokens.yaml")).unwrap();
    let label = "app.kubernetes.io/part-of: acr-pull-webhook";
    assert!(ours.contains(label), "{ours}");
    let theirs = ours.replace(label, "external-secrets.io/component: controller");
    release.send("create", theirs).await;
    let before = crds.get(access_tokens).await.unwrap();
    release.install(NO_FLAGS).await;
    let after = crds.get(access_tokens).await.unwrap();
    assert_eq!(before.metadata.labels, after.metadata.labels);
    assert_eq!(before.spec, after.spec);
    assert_crds_exist(&release).await;
    // The operator is installed after the chart and replaces the other CRD.
    let label = "external-secrets.io/component=controller";
    let relabel = release.kubectl("label crd").args([cluster_generators, label]);
    relabel.succeed().await;
    release.upgrade(set(["replicas=1"])).await;
    assert_crds_exist(&release).await;
    release.uninstall().await;
    for crd in [access_tokens, cluster_generators] {
        crds.get(crd).await.unwrap();
    }
}

/// The flags of the program for its two addresses, on a cluster as `helm install --dry-run=server` sees it.
async fn addresses(cluster: &Cluster) -> Vec<String> {
    let run = helm::release("install").args(["--create-namespace", "--dry-run=server", "--output", "json"]);
    let output = run
        .env("KUBECONFIG", cluster.control_plane.kubeconfig())
        .succeed()
        .await;
    let output: Value = serde_json::from_str(&output).unwrap();
    let manifests = chart::manifests::Manifests::parse(output["manifest"].as_str().unwrap());
    let arguments = manifests.only("Deployment")["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    let arguments: Vec<String> = serde_json::from_value(arguments).unwrap();
    let addresses = arguments
        .into_iter()
        .filter(|argument| argument.contains("-addr="));
    addresses.collect()
}

/// Also on a cluster whose Services have IPv6 addresses only. The API server itself stays on 127.0.0.1.
#[testkit::test]
async fn the_webhook_listens_on_all_addresses_of_both_ip_families() {
    let flags = &[
        "--service-cluster-ip-range=fd00:10:96::/112",
        "--advertise-address=fd00::1",
    ];
    let cluster = Cluster::of(&ControlPlane::start_own_with(flags).await).await;
    let expected = ["--listen-addr=[::]:8443", "--admin-addr=[::]:8080"];
    assert_eq!(addresses(&cluster).await, expected);
}
