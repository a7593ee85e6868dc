//! Both kinds of reference, and the clouds.

use crate::refusals::assert_refused;
use acr_pull_webhook::{generator::ClusterGenerator, pull_secret::StoredKind, reference::Kind};
use azure_emulator::Endpoint;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use testkit::{
    env::TestEnv,
    eventually,
    objects::{CLIENT_ID, pod, pull_secret_name},
    review::{post, review},
};

#[testkit::test]
async fn a_cluster_generator_uses_the_service_account_of_each_pod() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(json!({})).await;
    for team in [&env.team_a, &env.team_b] {
        let name = pull_secret_name(&team.namespace.create_pod(&pod("app", &reference)).await);
        env.assert_pulls(&team.namespace, &name, team.repository).await;
        let owner = team.namespace.pull_secret(&name).await;
        let kind = StoredKind::Known(Kind::ClusterGenerator);
        assert_eq!(owner.spec.generator.kind, kind);
    }
    assert_eq!(
        env.azure.subjects(),
        [&env.team_a, &env.team_b].map(|t| format!("system:serviceaccount:{}:app", t.namespace))
    );
}

#[testkit::test]
async fn a_service_account_of_another_namespace_is_used_if_it_permits() {
    let env = TestEnv::start().await;
    let (central, team) = (&env.team_b.namespace, &env.team_a.namespace);
    let account = json!({"name": "puller", "namespace": central});
    let auth = json!({"workloadIdentity": {"serviceAccountRef": account}});
    let reference = env.cluster_generator(json!({"auth": auth})).await;
    let client_id = (CLIENT_ID, env.team_b.client_id);
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
    // A refusal is repeated for a moment.
    let name = pull_secret_name(&team.retry_create_pod(&pod("app", &reference)).await);
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
async fn only_permitted_namespaces_use_a_restricted_cluster_generator() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(json!({})).await;
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
    eventually("the annotation applies", async || {
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
        "the other permitted namespaces are not in the message: {}",
        refused.message
    );
    // The restriction also applies to a default generator.
    a.set_default_generator(json!(format!("ClusterGenerator.{name}")))
        .await;
    let mut unannotated = pod("by-default", &reference);
    unannotated.metadata.annotations = None;
    eventually("the label applies", async || {
        let answer = post(&env, &review(a, &unannotated)).await;
        (answer["response"]["allowed"] == false).then_some(())
    })
    .await;
    allow(Some("*")).await;
    a.retry_create_pod(&pod("app", &reference)).await;
    allow(None).await;
    a.create_pod(&pod("later", &reference)).await;
}

#[testkit::test]
async fn the_name_of_a_cluster_generator_alone_is_refused_with_its_reference() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(json!({})).await;
    let name = reference.strip_prefix("ClusterGenerator/").unwrap();
    eventually("the refusal contains the reference", async || {
        let refused = env.team_a.namespace.refused_pod(&pod("app", name)).await;
        assert!(
            refused.message.contains("GeneratorNotFound"),
            "{}",
            refused.message
        );
        refused
            .message
            .contains(&format!("write {reference}"))
            .then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_cluster_generator_of_another_kind_is_refused() {
    let env = TestEnv::start().await;
    let generator = json!({"ecrAuthorizationTokenSpec": {"region": "eu-west-1"}});
    let other = json!({"kind": "ECRAuthorizationToken", "generator": generator});
    let reference = env.cluster_generator_of("other", other).await;
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
async fn each_cloud_has_its_own_entra_host_and_audience() {
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
        let request = env.azure.records(Endpoint::EntraToken).pop().unwrap();
        assert_eq!(
            (request.host.as_str(), request.scope.as_deref()),
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
    let request = env.azure.records(Endpoint::EntraToken).remove(0);
    assert_eq!(
        request.audience.as_deref(),
        Some("api://AzureADTokenExchange api://other")
    );

    // Generators for External Secrets Operator may request the audience of Azure Resource Manager.
    let arm = "https://management.core.windows.net/";
    let auth = json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "audiences": [arm]}}});
    namespace.apply_generator("arm", json!({"auth": auth})).await;
    assert_refused(
        &env,
        &pod("app", "arm"),
        422,
        "GeneratorInvalid",
        &[arm, "which --token-audiences does not permit"],
    )
    .await;
}
