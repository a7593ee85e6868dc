//! Pods that are refused, and the messages of the refusals.

use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use testkit::{
    azure::TENANT,
    env::TestEnv,
    eventually,
    objects::{ANNOTATION, CLIENT_ID, pod, with_account},
};

/// Asserts that a Pod of team A is refused with this code, this reason and these texts.
pub async fn assert_refused(env: &TestEnv, pod: &Pod, code: u16, reason: &str, texts: &[&str]) {
    let status = env.team_a.namespace.refused_pod(pod).await;
    assert_eq!(status.code, code, "{}", status.message);
    assert!(status.message.contains(reason), "{reason}: {}", status.message);
    for text in texts {
        let message = &status.message;
        assert!(message.contains(text), "{text:?} is missing: {message}");
    }
}

#[testkit::test]
async fn an_invalid_annotation_is_refused() {
    let env = TestEnv::start().await;
    for bad in [
        "",
        "Not a name",
        "a,,b",
        "Secret/contoso",
        "ClusterGenerator/",
        "a,none",
    ] {
        assert_refused(&env, &pod("app", bad), 422, "InvalidAnnotation", &[ANNOTATION]).await;
    }
    assert!(env.azure.requests().is_empty());
}

#[testkit::test]
async fn a_missing_generator_is_refused() {
    let env = TestEnv::start().await;
    let texts = ["\"fabrikam\"", env.team_a.namespace.name(), "create it"];
    assert_refused(&env, &pod("app", "fabrikam"), 422, "GeneratorNotFound", &texts).await;
    assert_refused(
        &env,
        &pod("app", "contoso,fabrikam"),
        422,
        "GeneratorNotFound",
        &texts,
    )
    .await;
    assert!(
        env.azure.requests().is_empty(),
        "no token is requested for the other generator"
    );
    assert!(env.team_a.namespace.list_pull_secrets().await.is_empty());
}

#[testkit::test]
async fn a_registry_of_another_domain_is_refused() {
    let env = TestEnv::start().await;
    for host in [
        "evil.example.com",
        "contoso.azurecr.io.evil.example.com",
        "https://contoso.azurecr.io",
        "contoso.azurecr.io/",
        "evilazurecr.io",
    ] {
        env.team_a
            .namespace
            .apply_generator("evil", json!({"registry": host}))
            .await;
        eventually("the refusal names the registry", async || {
            let status = env.team_a.namespace.refused_pod(&pod("app", "evil")).await;
            assert_eq!(status.code, 403);
            (status.message.contains("RegistryNotAllowed") && status.message.contains(host)).then_some(())
        })
        .await;
    }
    assert!(env.azure.requests().is_empty(), "no token was requested");
}

#[testkit::test]
async fn a_scope_with_a_wildcard_is_refused() {
    let env = TestEnv::start().await;
    env.team_a
        .namespace
        .apply_generator("wild", json!({"scope": "repository:team-a/*:pull"}))
        .await;
    assert_refused(
        &env,
        &pod("app", "wild"),
        422,
        "ScopeInvalid",
        &["character 19", "wildcards"],
    )
    .await;
}

#[testkit::test]
async fn a_missing_client_id_or_tenant_id_is_refused() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace.apply_service_account("other", &[]).await;
    let other = with_account(pod("app", "contoso"), "other");
    let command = format!("kubectl annotate serviceaccount --namespace {namespace} other");
    assert_refused(&env, &other, 422, "ClientIdMissing", &[&command]).await;
    namespace
        .apply_generator("no-tenant", json!({"tenantId": ""}))
        .await;
    assert_refused(
        &env,
        &pod("app", "no-tenant"),
        422,
        "TenantIdMissing",
        &["--tenant-id"],
    )
    .await;
}

#[testkit::test]
async fn identities_of_other_namespaces_are_refused() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("managed", json!({"auth": {"managedIdentity": {}}}))
        .await;
    assert_refused(
        &env,
        &pod("app", "managed"),
        403,
        "ManagedIdentityNotAllowed",
        &["--managed-identity-namespaces", namespace.name()],
    )
    .await;
    let foreign =
        json!({"workloadIdentity": {"serviceAccountRef": {"name": "app", "namespace": "elsewhere"}}});
    namespace
        .apply_generator("foreign", json!({"auth": foreign}))
        .await;
    assert_refused(
        &env,
        &pod("app", "foreign"),
        403,
        "CrossNamespaceNotAllowed",
        &["serviceAccountRef.namespace"],
    )
    .await;
    let missing = json!({"workloadIdentity": {"serviceAccountRef": {"name": "missing"}}});
    namespace
        .apply_generator("missing", json!({"auth": missing}))
        .await;
    assert_refused(
        &env,
        &pod("app", "missing"),
        422,
        "ServiceAccountNotFound",
        &["\"missing\""],
    )
    .await;
}

#[testkit::test]
async fn a_permanent_refusal_of_entra_refuses_the_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let unknown = "cccccccc-cccc-cccc-cccc-cccccccccccc";
    namespace
        .apply_service_account("stranger", &[(CLIENT_ID, unknown)])
        .await;
    let stranger = with_account(pod("app", "contoso"), "stranger");
    assert_refused(
        &env,
        &stranger,
        403,
        "EntraRefused",
        &[
            "AADSTS700016",
            unknown,
            &format!(
                "kubectl annotate serviceaccount --overwrite --namespace {namespace} stranger {CLIENT_ID}="
            ),
        ],
    )
    .await;

    let nowhere = "99999999-9999-9999-9999-999999999999";
    namespace
        .apply_generator("nowhere", json!({"tenantId": nowhere}))
        .await;
    assert_refused(
        &env,
        &pod("app", "nowhere"),
        403,
        "EntraRefused",
        &["AADSTS90002", "kubectl patch acraccesstoken nowhere --namespace"],
    )
    .await;
    assert_ne!(nowhere, TENANT);
    assert_eq!(env.azure.calls(Endpoint::AcrExchange), 0);
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn a_pod_without_a_service_account_is_told_to_set_one() {
    let env = TestEnv::start().await;
    let mut without = pod("app", "contoso");
    without.spec.as_mut().unwrap().service_account_name = None;
    let refused = env.team_a.namespace.try_create_pod(&without).await;
    let Err(kube::Error::Api(status)) = refused else {
        panic!("{refused:?}");
    };
    for text in [
        "ClientIdMissing",
        "/default",
        "set spec.serviceAccountName",
        CLIENT_ID,
    ] {
        assert!(status.message.contains(text), "{}", status.message);
    }
    assert!(!status.message.contains("kubectl annotate"), "{}", status.message);
}
