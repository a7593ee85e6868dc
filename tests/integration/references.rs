//! The kinds of reference, and the clouds.

use super::site::{REGISTRY, Site, TENANT, eventually, pod, pull_secret_name};
use acr_pull_webhook::{generator::ClusterGenerator, pull_secret::StoredKind, reference::Kind};
use azure_emulator::Endpoint;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// The spec of a ClusterGenerator for the registry, by this identity.
fn acr(workload_identity: Value) -> Value {
    let spec =
        json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": workload_identity}});
    json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}})
}

#[tokio::test]
async fn a_cluster_generator_serves_each_namespace_by_its_pods_own_service_account() {
    let site = Site::start().await;
    let reference = site.cluster_generator(acr(json!({}))).await;
    for team in [&site.a, &site.b] {
        let name = pull_secret_name(&site.create(&team.namespace, &pod("app", &reference)).await);
        assert_eq!(
            site.opens(&team.namespace, &name, team.repository).await,
            502,
            "authorised; no registry is behind it"
        );
        let owner = site.pull_secrets(&team.namespace).get(&name).await.unwrap();
        let kind = StoredKind::Known(Kind::ClusterGenerator);
        assert_eq!(owner.spec.generator.kind, kind);
    }
    let subjects: Vec<_> = site
        .records(Endpoint::EntraToken)
        .into_iter()
        .filter_map(|r| r.subject)
        .collect();
    assert_eq!(
        subjects,
        [&site.a, &site.b].map(|t| format!("system:serviceaccount:{}:app", t.namespace))
    );
}

#[tokio::test]
async fn a_service_account_of_another_namespace_is_used_where_it_allows_that() {
    let site = Site::start().await;
    let (central, team) = (&site.b.namespace, &site.a.namespace);
    let reference = site
        .cluster_generator(acr(
            json!({"serviceAccountRef": {"name": "puller", "namespace": central}}),
        ))
        .await;
    let client_id = ("azure.workload.identity/client-id", site.b.client_id);
    site.service_account(central, "puller", &[client_id]).await;
    let refused = site.refused(team, &pod("app", &reference)).await;
    assert_eq!(refused.code, 403);
    assert!(
        refused.message.contains("CrossNamespaceNotAllowed"),
        "{}",
        refused.message
    );
    assert!(site.emulator.requests().is_empty());

    site.service_account(
        central,
        "puller",
        &[client_id, ("acr-pull.dev/allowed-namespaces", team)],
    )
    .await;
    let name = pull_secret_name(&site.create(team, &pod("app", &reference)).await);
    let subject = site.records(Endpoint::EntraToken).remove(0).subject.unwrap();
    assert_eq!(subject, format!("system:serviceaccount:{central}:puller"));
    let owner = site.pull_secrets(team).get(&name).await.unwrap();
    assert_eq!(owner.spec.service_account_namespace.as_ref(), Some(central));
    assert_eq!(site.opens(team, &name, site.b.repository).await, 502);
}

#[tokio::test]
async fn a_cluster_generator_that_allows_some_namespaces_is_used_from_these_alone() {
    let site = Site::start().await;
    let reference = site.cluster_generator(acr(json!({}))).await;
    let name = reference.trim_start_matches("ClusterGenerator/");
    let generators = Api::<ClusterGenerator>::all(site.client.clone());
    let allow = async |namespaces: Option<&str>| {
        let patch = Patch::Merge(
            json!({"metadata": {"annotations": {"acr-pull.dev/allowed-namespaces": namespaces}}}),
        );
        let patched = generators.patch(name, &PatchParams::default(), &patch).await;
        patched.unwrap();
    };
    let (a, b) = (&site.a.namespace, &site.b.namespace);
    allow(Some(b)).await;
    site.create(b, &pod("allowed", &reference)).await;
    eventually("the annotation is seen", async || {
        let review = super::review::review(a, &pod("app", &reference));
        let answer = super::review::post(&site, &review).await;
        (answer["response"]["allowed"] == false).then_some(())
    })
    .await;
    let refused = site.refused(a, &pod("app", &reference)).await;
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
        !refused.message.contains(b.as_str()),
        "whom else it allows is not said: {}",
        refused.message
    );
    // A default by label is a reference as any other.
    site.namespace_default(a, json!(format!("ClusterGenerator.{name}")))
        .await;
    let mut unannotated = pod("by-default", &reference);
    unannotated.metadata.annotations = None;
    eventually("the label is seen", async || {
        let answer = super::review::post(&site, &super::review::review(a, &unannotated)).await;
        (answer["response"]["allowed"] == false).then_some(())
    })
    .await;
    allow(Some("*")).await;
    site.create(a, &pod("app", &reference)).await;
    allow(None).await;
    site.create(a, &pod("later", &reference)).await;
}

#[tokio::test]
async fn a_cluster_generator_of_another_kind_is_refused_by_name() {
    let site = Site::start().await;
    let other = json!({"kind": "ECRAuthorizationToken", "generator": {"ecrAuthorizationTokenSpec": {"region": "eu-west-1"}}});
    let reference = site.cluster_generator(other).await;
    let refused = site.refused(&site.a.namespace, &pod("app", &reference)).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message.contains("ECRAuthorizationToken"),
        "{}",
        refused.message
    );
    let missing = site
        .refused(&site.a.namespace, &pod("app", "ClusterGenerator/no-such"))
        .await;
    assert!(
        missing
            .message
            .contains("no ClusterGenerator \"no-such\" exists in the cluster"),
        "{}",
        missing.message
    );
}

#[tokio::test]
async fn each_cloud_is_asked_at_its_own_entra_for_its_own_audience() {
    let flags =
        ["--acr-audience=ChinaCloud=https://containerregistry.azure.cn,https://containerregistry.azure.net"];
    let site = Site::with_flags(&flags).await;
    let namespace = &site.a.namespace;
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
        site.generator(namespace, &generator, spec).await;
        let review = super::review::review(namespace, &pod("app", &generator));
        super::review::post(&site, &review).await;
        let asked = site.records(Endpoint::EntraToken).pop().unwrap();
        assert_eq!(
            (asked.host.as_str(), asked.scope.as_deref()),
            (host, Some(audience))
        );
        site.emulator.clear_requests();
    }
    site.generator(namespace, "stack", json!({"environmentType": "AzureStackCloud"}))
        .await;
    let refused = site.refused(namespace, &pod("app", "stack")).await;
    assert!(
        refused.message.contains("--authority-host"),
        "{}",
        refused.message
    );
}

#[tokio::test]
async fn permitted_audiences_are_added_to_the_assertion() {
    let site = Site::with_flags(&["--token-audiences=api://AzureADTokenExchange,api://other"]).await;
    let namespace = &site.a.namespace;
    let auth =
        json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "audiences": ["api://other"]}}});
    site.generator(namespace, "more", json!({"auth": auth})).await;
    site.create(namespace, &pod("app", "more")).await;
    let asked = site.records(Endpoint::EntraToken).remove(0);
    assert_eq!(
        asked.audience.as_deref(),
        Some("api://AzureADTokenExchange api://other")
    );
}
