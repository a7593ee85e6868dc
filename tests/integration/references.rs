//! The kinds of reference, and the clouds.

use acr_pull_webhook::generator::ClusterGenerator;
use azure_emulator::Endpoint;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::{REGISTRY, TENANT},
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name},
    review::{post, review},
};

/// The spec of a ClusterGenerator for the registry, by this identity.
fn acr(workload_identity: Value) -> Value {
    let spec =
        json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": workload_identity}});
    json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}})
}

#[testkit::test]
async fn a_cluster_generator_serves_each_namespace_by_its_pods_own_service_account() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(acr(json!({}))).await;
    for team in [&env.team_a, &env.team_b] {
        let name = pull_secret_name(&team.namespace.create_pod(&pod("app", &reference)).await);
        env.assert_pulls(&team.namespace, &name, team.repository).await;
        let owner = team.namespace.pull_secret(&name).await;
        assert_eq!(owner.spec.generator.kind, "ClusterGenerator");
    }
    let subjects: Vec<_> = env
        .azure
        .records(Endpoint::EntraToken)
        .into_iter()
        .filter_map(|r| r.subject)
        .collect();
    assert_eq!(
        subjects,
        [&env.team_a, &env.team_b].map(|t| format!("system:serviceaccount:{}:app", t.namespace))
    );
}

#[testkit::test]
async fn a_service_account_of_another_namespace_is_used_where_it_allows_that() {
    let env = TestEnv::start().await;
    let (central, team) = (&env.team_b.namespace, &env.team_a.namespace);
    let reference = env
        .cluster_generator(acr(
            json!({"serviceAccountRef": {"name": "puller", "namespace": central}}),
        ))
        .await;
    let client_id = ("azure.workload.identity/client-id", env.team_b.client_id);
    central.apply_service_account("puller", &[client_id]).await;
    let refused = team.refused_pod(&pod("app", &reference)).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.contains("CrossNamespaceNotAllowed"),
        "{}",
        refused.message
    );
    assert!(env.azure.requests().is_empty());

    central
        .apply_service_account(
            "puller",
            &[client_id, ("acr-pull.dev/allowed-namespaces", team.name())],
        )
        .await;
    let name = pull_secret_name(&team.create_pod(&pod("app", &reference)).await);
    let subject = env.azure.records(Endpoint::EntraToken).remove(0).subject.unwrap();
    assert_eq!(subject, format!("system:serviceaccount:{central}:puller"));
    let owner = team.pull_secret(&name).await;
    assert_eq!(
        owner.spec.service_account_namespace.as_deref(),
        Some(central.name())
    );
    env.assert_pulls(team, &name, env.team_b.repository).await;
}

#[testkit::test]
async fn a_cluster_generator_that_allows_some_namespaces_is_used_from_these_alone() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(acr(json!({}))).await;
    let name = reference.trim_start_matches("ClusterGenerator/");
    let generators = Api::<ClusterGenerator>::all(env.client.clone());
    let allow = async |namespaces: Option<&str>| {
        let patch = Patch::Merge(
            json!({"metadata": {"annotations": {"acr-pull.dev/allowed-namespaces": namespaces}}}),
        );
        let patched = generators.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap();
    };
    let (a, b) = (&env.team_a.namespace, &env.team_b.namespace);
    allow(Some(b.name())).await;
    b.create_pod(&pod("allowed", &reference)).await;
    eventually("the annotation is seen", async || {
        let review = review(a, &pod("app", &reference));
        let answer = post(&env, &review).await;
        (answer["response"]["allowed"] == false).then_some(())
    })
    .await;
    let refused = a.refused_pod(&pod("app", &reference)).await;
    assert_eq!(refused.code, 403);
    for part in [
        "CrossNamespaceNotAllowed",
        &format!("ClusterGenerator {name} does not allow Pods of namespace {a}"),
        &format!(
            "kubectl annotate clustergenerator --overwrite {name} acr-pull.dev/allowed-namespaces=PRESENT,{a}"
        ),
    ] {
        assert!(refused.message.contains(part), "{part}: {}", refused.message);
    }
    assert!(
        !refused.message.contains(b.name()),
        "whom else it allows is not said: {}",
        refused.message
    );
    // A default by label is a reference as any other.
    a.set_default_generator(json!(format!("ClusterGenerator.{name}")))
        .await;
    let mut unannotated = pod("by-default", &reference);
    unannotated.metadata.annotations = None;
    eventually("the label is seen", async || {
        let answer = post(&env, &review(a, &unannotated)).await;
        (answer["response"]["allowed"] == false).then_some(())
    })
    .await;
    allow(Some("*")).await;
    a.create_pod(&pod("app", &reference)).await;
    allow(None).await;
    a.create_pod(&pod("later", &reference)).await;
}

#[testkit::test]
async fn a_cluster_generator_of_another_kind_is_refused_by_name() {
    let env = TestEnv::start().await;
    let other = json!({"kind": "ECRAuthorizationToken", "generator": {"ecrAuthorizationTokenSpec": {"region": "eu-west-1"}}});
    let reference = env.cluster_generator(other).await;
    let refused = env.team_a.namespace.refused_pod(&pod("app", &reference)).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message.contains("ECRAuthorizationToken"),
        "{}",
        refused.message
    );
    let missing = env
        .team_a
        .namespace
        .refused_pod(&pod("app", "ClusterGenerator/no-such"))
        .await;
    assert!(
        missing
            .message
            .contains("no ClusterGenerator \"no-such\" exists in the cluster"),
        "{}",
        missing.message
    );
}

#[testkit::test]
async fn each_cloud_is_asked_at_its_own_entra_for_its_own_audience() {
    let flags =
        ["--acr-audience=ChinaCloud=https://containerregistry.azure.cn,https://containerregistry.azure.net"];
    let env = TestEnv::with_flags(&flags).await;
    let namespace = &env.team_a.namespace;
    for (cloud, registry, host, audience) in [
        (
            "USGovernmentCloud",
            "contoso.azurecr.us",
            "login.microsoftonline.us",
            "https://containerregistry.azure.net/.default",
        ),
        (
            "ChinaCloud",
            "contoso.azurecr.cn",
            "login.chinacloudapi.cn",
            "https://containerregistry.azure.cn/.default",
        ),
    ] {
        let generator = cloud.to_lowercase();
        let spec = json!({"environmentType": cloud, "registry": registry});
        namespace.apply_generator(&generator, spec).await;
        let review = review(namespace, &pod("app", &generator));
        post(&env, &review).await;
        let asked = env.azure.records(Endpoint::EntraToken).pop().unwrap();
        assert_eq!(
            (asked.host.as_str(), asked.scope.as_deref()),
            (host, Some(audience))
        );
        env.azure.clear_requests();
    }
    namespace
        .apply_generator("stack", json!({"environmentType": "AzureStackCloud"}))
        .await;
    let refused = namespace.refused_pod(&pod("app", "stack")).await;
    assert!(
        refused.message.contains("--authority-host"),
        "{}",
        refused.message
    );
}

#[testkit::test]
async fn permitted_audiences_are_added_to_the_assertion() {
    let env = TestEnv::with_flags(&["--token-audiences=api://AzureADTokenExchange,api://other"]).await;
    let namespace = &env.team_a.namespace;
    let auth =
        json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "audiences": ["api://other"]}}});
    namespace.apply_generator("more", json!({"auth": auth})).await;
    namespace.create_pod(&pod("app", "more")).await;
    let asked = env.azure.records(Endpoint::EntraToken).remove(0);
    assert_eq!(
        asked.audience.as_deref(),
        Some("api://AzureADTokenExchange api://other")
    );
}
