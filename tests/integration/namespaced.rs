//! A webhook that looks after some namespaces alone, by Roles.

use azure_emulator::Endpoint;
use kube::{Api, api::DeleteParams};
use serde_json::json;
use testkit::{
    control_plane::apply,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name},
};

#[testkit::test]
async fn by_revoke_cluster_role_pods_are_admitted_and_their_pull_secrets_renewed_and_collected() {
    let flags = ["--namespaces=TEAM_A", "--unused-grace=3s", "--unused-notice=3s"];
    let mut env = TestEnv::leading(&flags, |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "12s"})
    })
    .await;
    let namespace = env.team_a.namespace.clone();
    let binding = env.revoke_cluster_role().await;
    apply(&namespace.api(), &binding).await;
    env.restart_webhook().await;

    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    let renewed = namespace.status(&name).await.last_renewal_time;
    eventually("it is renewed", async || {
        (namespace.status(&name).await.last_renewal_time != renewed).then_some(())
    })
    .await;
    namespace.delete_pod("app").await;
    namespace.wait_until_secret_is_gone(&name).await;

    let calls = env.azure.calls(Endpoint::EntraToken);
    let refused = namespace
        .refused_pod(&pod("other", "ClusterGenerator/contoso"))
        .await;
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("--namespaces"), "{}", refused.message);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), calls);
    let forbidden = env
        .webhook
        .log()
        .iter()
        .filter(|line| line.contains("forbidden"))
        .count();
    assert_eq!(forbidden, 0, "it asks for nothing that it may not");
}
