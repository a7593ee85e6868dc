//! The webhook writes Secrets without reading them.

use acr_pull_webhook::{generator::ACRAccessToken, pull_secret::AccountOf};
use azure_emulator::Endpoint;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    objects::{CLIENT_ID, pod, pull_secret_name, unnamed_pod},
};

#[testkit::test]
async fn a_deleted_secret_is_recreated_at_the_next_issue() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    namespace.delete_secret(&name).await;
    reissue(&env).await;
    namespace.credentials(&name).await;
}

#[testkit::test]
async fn an_overwritten_secret_is_corrected_at_the_next_issue() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    let (_, good) = namespace.credentials(&name).await;
    let before = namespace.secrets().get(&name).await.unwrap();
    let broken = json!({"stringData": {".dockerconfigjson": "{\"auths\":{}}"}});
    let overwrite = Patch::Merge::<serde_json::Value>(broken);
    namespace
        .secrets()
        .patch(&name, &PatchParams::default(), &overwrite)
        .await
        .unwrap();
    reissue(&env).await;
    let after: Secret = namespace.secrets().get(&name).await.unwrap();
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert_ne!(
        namespace.credentials(&name).await.1,
        good,
        "a new token in the same Secret"
    );
}

/// Changes the generator, and waits for the new token.
async fn reissue(env: &TestEnv) {
    let namespace = &env.team_a.namespace;
    let calls = env.azure.calls(Endpoint::AcrExchange);
    namespace
        .apply_generator("contoso", json!({"scope": "repository:team-a/app:pull"}))
        .await;
    eventually("a Pod after the change has a new token", async || {
        let next = unnamed_pod("contoso");
        namespace.create_pod(&next).await;
        (env.azure.calls(Endpoint::AcrExchange) > calls).then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_pull_secret_is_not_renewed_with_another_identity() {
    let env = TestEnv::leading(&[], token_lifetime(12)).await;
    let namespace = &env.team_a.namespace;
    let own = json!({"auth": {"workloadIdentity": {"serviceAccountRef": {"name": "app"}}}});
    namespace.apply_generator("contoso", own).await;
    let annotation = [(CLIENT_ID, env.team_b.client_id)];
    namespace.apply_service_account("default", &annotation).await;
    let name = eventually(
        "a Pod has the pull secret of the generator's account",
        async || {
            let name = pull_secret_name(&namespace.create_pod(&unnamed_pod("contoso")).await);
            (!name.contains("-app-")).then_some(name)
        },
    )
    .await;
    let spec = namespace.pull_secret(&name).await.spec;
    assert_eq!(spec.service_account_of, Some(AccountOf::Generator));
    let pods = json!({"spec": {"auth": {"workloadIdentity": {"serviceAccountRef": null}}}});
    namespace
        .api::<ACRAccessToken>()
        .patch("contoso", &PatchParams::default(), &Patch::Merge(pods))
        .await
        .unwrap();
    eventually("the condition reports that the identity is unknown", async || {
        let conditions = namespace.status(&name).await.conditions;
        let is_reported =
            |c: &Condition| c.reason == "GeneratorInvalid" && c.message.contains("another identity");
        conditions.iter().any(is_reported).then_some(())
    })
    .await;
    assert_eq!(env.azure.calls_of(env.team_b.client_id, Endpoint::EntraToken), 0);
}
