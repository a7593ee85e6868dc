//! Pods on a real node pull private images with their own identity.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use acr_pull_webhook::{generator::ClusterGenerator, pull_secret::StoredKind, reference::Kind};
use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Client,
    api::{Patch, PostParams},
};
use serde_json::json;
use testkit::objects::{ANNOTATION, cluster_generator_spec, from, pod_json};

const IDENTITIES: [&str; 3] = ["system", "by-client-id", "by-resource-id"];

#[testkit::test]
async fn only_the_annotated_pod_pulls_the_private_image() {
    let client = client().await;
    let namespace = Scenario::Annotation.set_up(&client, json!({})).await;
    namespace.create_app("plain", None).await;
    namespace.create_app("annotated", Some("contoso")).await;
    namespace.wait_until_running("annotated").await;
    namespace.wait_until_pull_fails("plain").await;
    let requests = azure::requests_of(&client, &namespace.scenario.subject()).await;
    assert!(!requests.is_empty(), "Entra saw the Pod's own service account");
}

#[testkit::test]
async fn two_identities_cannot_pull_the_image_of_each_other() {
    let client = client().await;
    let first = Scenario::FirstIdentity.set_up(&client, json!({})).await;
    let second = Scenario::SecondIdentity.set_up(&client, json!({})).await;
    for (own, other) in [(&first, &second), (&second, &first)] {
        own.create_app("own", Some("contoso")).await;
        own.create_pod_with_image("other", &other.scenario.image(), Some("contoso"))
            .await;
    }
    for namespace in [&first, &second] {
        namespace.wait_until_running("own").await;
        namespace.wait_until_pull_fails("other").await;
        let requests = azure::requests_of(&client, &namespace.scenario.subject()).await;
        assert!(!requests.is_empty());
    }
}

#[testkit::test]
async fn a_scoped_token_pulls_the_repository_of_its_scope() {
    let client = client().await;
    let scope = format!("repository:{}:pull", Scenario::Scope.repository());
    let namespace = Scenario::Scope.set_up(&client, json!({"scope": scope})).await;
    namespace.create_app("app", Some("contoso")).await;
    namespace.wait_until_running("app").await;
    let pull_secret = namespace.only_pull_secret().await;
    assert_eq!(pull_secret.status.unwrap().scope, Some(scope));
}

/// A developer applies everything at once, and the first pull succeeds.
#[testkit::test]
async fn ten_new_namespaces_start_without_a_failed_pull() {
    let client = client().await;
    let mut namespaces = Vec::new();
    for scenario in Scenario::FRESH {
        namespaces.push(scenario.recreate_namespace(&client).await);
    }
    for namespace in &namespaces {
        namespace.create_identity(json!({})).await;
        namespace.create_app("first", Some("contoso")).await;
    }
    for namespace in &namespaces {
        namespace.wait_until_running("first").await;
        let warnings = namespace.pull_warnings("first").await;
        assert!(warnings.is_empty(), "{}: {warnings:?}", namespace.name());
    }
}

#[testkit::test]
async fn all_kinds_of_container_of_a_job_pull_with_the_same_secret() {
    let client = client().await;
    let namespace = Scenario::ContainerKinds.set_up(&client, json!({})).await;
    let image = namespace.scenario.image();
    let init = json!({"name": "init", "image": image, "imagePullPolicy": "Always", "args": ["once"]});
    let sidecar =
        json!({"name": "sidecar", "image": image, "imagePullPolicy": "Always", "restartPolicy": "Always"});
    let mut template = pod_json("", &image, json!({ANNOTATION: "contoso"}));
    template["metadata"].as_object_mut().unwrap().remove("name");
    template["spec"]["restartPolicy"] = json!("Never");
    template["spec"]["initContainers"] = json!([init, sidecar]);
    let job = json!({"metadata": {"name": "job"}, "spec": {"template": template}});
    namespace.create_object::<Job>(job).await;
    let pods = namespace.pods();
    let name = eventually("the Job's Pod runs", async || {
        let pod = pods.list(&Default::default()).await.unwrap();
        let pod = pod.items.into_iter().next()?;
        let status = pod.status?;
        let mut containers = status
            .container_statuses?
            .into_iter()
            .chain(status.init_container_statuses?);
        containers.all(|c| c.ready).then_some(pod.metadata.name?)
    })
    .await;
    // `kubectl debug` sends this patch.
    let ephemeral = json!({"name": "debug", "image": image, "imagePullPolicy": "Always"});
    let ephemeral = json!({"spec": {"ephemeralContainers": [ephemeral]}});
    pods.patch_ephemeral_containers(&name, &Default::default(), &Patch::Strategic(ephemeral))
        .await
        .unwrap();
    eventually("the ephemeral container runs", async || {
        let status = pods.get(&name).await.unwrap().status?;
        let state = status.ephemeral_container_statuses?.into_iter().next()?.state?;
        state.running.map(drop)
    })
    .await;
    let requests = azure::requests_of(&client, &namespace.scenario.subject()).await;
    assert_eq!(requests.len(), 1);
}

/// The webhook's Pods ask IMDS at its real address. On a cluster whose nodes may have an IMDS of Azure, they use the
/// endpoint of App Service.
#[testkit::test]
async fn managed_identities_pull_in_a_permitted_namespace_only() {
    let client = client().await;
    let namespace = Scenario::ManagedIdentity.recreate_namespace(&client).await;
    namespace.create_service_account().await;
    let ids = [
        None,
        Some(azure::USER_IDENTITY),
        Some(azure::USER_IDENTITY_RESOURCE),
    ];
    for (name, id) in IDENTITIES.into_iter().zip(ids) {
        let auth = json!({"managedIdentity": {"identityId": id}});
        namespace.create_generator(name, json!({"auth": auth})).await;
        namespace.create_app(name, Some(name)).await;
    }
    for name in IDENTITIES {
        namespace.wait_until_running(name).await;
    }
    for pull_secret in namespace.list_pull_secrets().await {
        let identity = pull_secret.status.unwrap().identity;
        assert_eq!(identity.as_deref(), Some("ManagedIdentity"));
    }
    let requests = azure::managed_identity_requests(&client).await;
    if std::env::var("CLUSTER").is_ok_and(|cluster| cluster != "other") {
        assert!(
            requests.iter().all(|record| record.host == "169.254.169.254"),
            "{requests:?}"
        );
    }
    for identity in [azure::SYSTEM_IDENTITY, azure::USER_IDENTITY] {
        let asked = requests
            .iter()
            .any(|record| record.client_id.as_deref() == Some(identity));
        assert!(asked, "{identity}");
    }

    let auth = json!({"auth": {"managedIdentity": {}}});
    let other = Scenario::NoManagedIdentity.set_up(&client, auth).await;
    let image = Scenario::ManagedIdentity.image();
    let pod: Pod = from(pod_json("app", &image, json!({ANNOTATION: "contoso"})));
    let refused = other.refused_pod(&pod).await;
    assert!(
        refused.message.contains("ManagedIdentityNotAllowed"),
        "{}",
        refused.message
    );
}

#[testkit::test]
async fn a_pod_without_annotation_pulls_by_the_label_of_its_namespace() {
    let client = client().await;
    let namespace = Scenario::DefaultGenerator.set_up(&client, json!({})).await;
    namespace.set_default_generator(json!("contoso")).await;
    // The API server sees the label after a short delay.
    let labelled = eventually("a Pod gets a pull secret", async || {
        let existing = namespace.pods().list(&Default::default()).await.unwrap();
        let name = format!("app-{}", existing.items.len());
        let created = namespace.create_app(&name, None).await;
        created.spec?.image_pull_secrets.map(|_| name)
    })
    .await;
    namespace.wait_until_running(&labelled).await;
}

/// The webhook cannot read Secrets: only the kubelet reports that one is missing.
#[testkit::test]
async fn a_deleted_secret_is_recreated_for_a_waiting_pod() {
    let client = client().await;
    let namespace = with_running_app(Scenario::Repair, &client).await;
    let name = namespace.only_pull_secret().await.metadata.name.unwrap();
    namespace.delete_secret(&name).await;
    // This Pod is admitted with the name of a Secret that does not exist.
    namespace.create_app("waiting", Some("contoso")).await;
    namespace.wait_until_running("waiting").await;
    assert!(namespace.secrets().get_opt(&name).await.unwrap().is_some());
}

#[testkit::test]
async fn a_cluster_generator_uses_the_service_account_of_each_pod() {
    let client = client().await;
    let generators = Api::<ClusterGenerator>::all(client.clone());
    let _ = generators.delete("acr-pull-e2e", &Default::default()).await;
    let spec = cluster_generator_spec(json!({}));
    let generator = from(json!({"metadata": {"name": "acr-pull-e2e"}, "spec": spec}));
    generators
        .create(&PostParams::default(), &generator)
        .await
        .unwrap();
    for scenario in [
        Scenario::FirstOfClusterGenerator,
        Scenario::SecondOfClusterGenerator,
    ] {
        let namespace = scenario.recreate_namespace(&client).await;
        namespace.create_service_account().await;
        namespace
            .create_app("app", Some("ClusterGenerator/acr-pull-e2e"))
            .await;
        namespace.wait_until_running("app").await;
        let pull_secret = namespace.only_pull_secret().await;
        let kind = StoredKind::Known(Kind::ClusterGenerator);
        assert_eq!(pull_secret.spec.generator.kind, kind);
        assert_eq!(azure::requests_of(&client, &scenario.subject()).await.len(), 1);
    }
}

#[testkit::test]
async fn deleting_an_acr_pull_secret_deletes_its_secret() {
    let client = client().await;
    let namespace = with_running_app(Scenario::Deletion, &client).await;
    let name = namespace.only_pull_secret().await.metadata.name.unwrap();
    let secret = namespace.secrets().get(&name).await.unwrap();
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
    // While a Pod runs, the webhook would restore the pull secret.
    namespace.delete_pod_and_wait("app").await;
    namespace.delete_pull_secret(&name).await;
    namespace.wait_until_secret_is_gone(&name).await;
}

async fn with_running_app(scenario: Scenario, client: &Client) -> ScenarioNamespace {
    let namespace = scenario.set_up(client, json!({})).await;
    namespace.create_app("app", Some("contoso")).await;
    namespace.wait_until_running("app").await;
    namespace
}
