//! Watches that fail for good: rights that were revoked, and a kind that was deleted.

use super::objects::check_renewal;
use crate::refusals::assert_refused;
use k8s_openapi::{
    api::rbac::v1::RoleBinding,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, api::DeleteParams, core::ObjectMeta};
use std::time::{Duration, Instant};
use testkit::{
    azure::token_lifetime,
    control_plane::{NAMESPACE, apply},
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
    turns,
};

/// Longer than a replica with failing watches stays ready at its start.
const READY_PERIOD: Duration = Duration::from_secs(30);

/// The number of scopes in which the watch of a kind fails.
async fn failing(env: &TestEnv, watch: &str) -> u64 {
    let name = format!("watches_failing{{watch=\"{watch}\"}}");
    env.webhook.metric(&name).await
}

async fn wait_until_failing(env: &TestEnv, watch: &str) {
    let message = format!("the watch of {watch} fails");
    env.webhook.wait_until_logged(&message).await;
}

async fn wait_until_watched(env: &TestEnv, watch: &str) {
    eventually(&format!("{watch} are watched again"), async || {
        (failing(env, watch).await == 0).then_some(())
    })
    .await;
}

async fn assert_stays_ready(env: &TestEnv) {
    let (until, mut turns) = (Instant::now() + READY_PERIOD, turns());
    while Instant::now() < until {
        turns.tick().await;
        let (status, body) = env.webhook.admin_get("/readyz").await;
        assert!(status == 200 && body.starts_with("ok"), "{status} {body}");
    }
}

#[testkit::test]
async fn revoked_rights_in_one_namespace_do_not_affect_others() {
    let flags = ["--namespaces=TEAM_A,TEAM_B"];
    let mut env = TestEnv::leading(&flags, token_lifetime(12)).await;
    let binding = env.revoke_cluster_role().await;
    let (team_a, team_b) = (env.team_a.namespace.clone(), env.team_b.namespace.clone());
    let rights = team_a.api::<RoleBinding>();
    apply(&rights, &binding).await;
    apply(&team_b.api(), &binding).await;
    env.restart_webhook().await;
    pull_secret_name(&team_a.create_pod(&pod("app", "contoso")).await);
    check_renewal(&env).await;

    rights.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    for watch in ["ACRAccessTokens", "ServiceAccounts", "ACRPullSecrets", "Pods"] {
        wait_until_failing(&env, watch).await;
    }
    assert_stays_ready(&env).await;
    assert_eq!(failing(&env, "ServiceAccounts").await, 1);
    check_renewal(&env).await;
    // A replica that starts now is ready too, and its leader works.
    env.restart_webhook().await;
    check_renewal(&env).await;
    assert_eq!(failing(&env, "ACRPullSecrets").await, 1);
    apply(&rights, &binding).await;
    for watch in ["ACRPullSecrets", "Pods"] {
        wait_until_watched(&env, watch).await;
    }
    pull_secret_name(&team_a.create_pod(&unnamed_pod("contoso")).await);
}

#[testkit::test]
async fn a_deleted_kind_affects_only_pods_that_reference_it() {
    let mut env = TestEnv::leading(&[], token_lifetime(12)).await;
    let kinds = Api::<CustomResourceDefinition>::all(env.client.clone());
    let name = "clustergenerators.generators.external-secrets.io";
    let mut kind = kinds.get(name).await.unwrap();
    kinds.delete(name, &DeleteParams::default()).await.unwrap();
    wait_until_failing(&env, "ClusterGenerators").await;
    assert_stays_ready(&env).await;
    assert_eq!(failing(&env, "ClusterGenerators").await, 1);
    check_renewal(&env).await;
    // A cluster in which the kind was never installed is the same for a replica that starts.
    env.restart_webhook().await;
    check_renewal(&env).await;
    let texts = ["the kind ClusterGenerator is not installed", name];
    let missing = pod("app", "ClusterGenerator/contoso");
    assert_refused(&env, &missing, 403, "CrdNotInstalled", &texts).await;
    kind.metadata = ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    };
    apply(&kinds, &kind).await;
    wait_until_watched(&env, "ClusterGenerators").await;
}
