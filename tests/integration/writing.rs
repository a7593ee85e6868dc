//! Writing Secrets without reading them.

use super::site::{Site, eventually, pod, pull_secret_name, unnamed};
use acr_pull_webhook::pull_secret::AccountOf;
use azure_emulator::Endpoint;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Condition};
use kube::api::{Patch, PatchParams};
use serde_json::json;

#[tokio::test]
async fn a_secret_deleted_by_hand_is_written_anew_at_the_next_issue() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    site.delete_secret(namespace, &name).await;
    reissue(&site).await;
    site.credentials(namespace, &name).await;
}

#[tokio::test]
async fn a_secret_overwritten_by_hand_is_put_right_in_place_at_the_next_issue() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    let (_, good) = site.credentials(namespace, &name).await;
    let before = site.secrets(namespace).get(&name).await.unwrap();
    let broken = json!({"stringData": {".dockerconfigjson": "{\"auths\":{}}"}});
    let overwrite = Patch::Merge::<serde_json::Value>(broken);
    site.secrets(namespace)
        .patch(&name, &PatchParams::default(), &overwrite)
        .await
        .unwrap();
    reissue(&site).await;
    let after: Secret = site.secrets(namespace).get(&name).await.unwrap();
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert_ne!(
        site.credentials(namespace, &name).await.1,
        good,
        "a new token in the same Secret"
    );
}

/// Makes what the token depends on change, and waits for the token that follows.
async fn reissue(site: &Site) {
    let namespace = &site.a.namespace;
    let calls = site.calls(Endpoint::AcrExchange);
    site.generator(
        namespace,
        "contoso",
        json!({"scope": "repository:team-a/app:pull"}),
    )
    .await;
    eventually("a Pod after the change has a new token", async || {
        let next = unnamed("contoso");
        site.create(namespace, &next).await;
        (site.calls(Endpoint::AcrExchange) > calls).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_secret_of_the_generators_account_is_not_renewed_as_another_one() {
    let lives = |world: &mut serde_json::Value| world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    let site = Site::leading(&[], lives).await;
    let namespace = &site.a.namespace;
    let own = json!({"auth": {"workloadIdentity": {"serviceAccountRef": {"name": "app"}}}});
    site.generator(namespace, "contoso", own).await;
    let annotation = [("azure.workload.identity/client-id", site.b.client_id)];
    site.service_account(namespace, "default", &annotation).await;
    let name = eventually(
        "a Pod has the pull secret of the generator's account",
        async || {
            let name = pull_secret_name(&site.create(namespace, &unnamed("contoso")).await);
            (!name.ends_with("app")).then_some(name)
        },
    )
    .await;
    let spec = site.pull_secrets(namespace).get(&name).await.unwrap().spec;
    assert_eq!(spec.service_account_of, Some(AccountOf::Generator));
    site.generator(namespace, "contoso", json!({"auth": {"workloadIdentity": {}}}))
        .await;
    eventually("the condition tells that nobody says for whom", async || {
        let conditions = site.status(namespace, &name).await.conditions;
        let told = |c: &Condition| c.reason == "GeneratorInvalid" && c.message.contains("another identity");
        conditions.iter().any(told).then_some(())
    })
    .await;
    assert_eq!(site.calls_of(site.b.client_id, Endpoint::EntraToken), 0);
}
