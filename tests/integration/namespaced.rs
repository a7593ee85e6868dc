//! A webhook with the rights of Roles, which serves only some namespaces.

use azure_emulator::Endpoint;
use testkit::{
    azure::token_lifetime,
    control_plane::apply,
    env::TestEnv,
    objects::{pod, pull_secret_name},
};

#[testkit::test]
async fn roles_suffice_for_admission_renewal_and_collection() {
    let flags = ["--namespaces=TEAM_A", "--unused-grace=3s", "--unused-notice=3s"];
    let mut env = TestEnv::leading(&flags, token_lifetime(12)).await;
    let namespace = env.team_a.namespace.clone();
    let binding = env.revoke_cluster_role().await;
    apply(&namespace.api(), &binding).await;
    env.restart_webhook().await;

    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    namespace.wait_for_renewals(&name, 1).await;
    namespace.delete_pod("app").await;
    namespace.wait_until_secret_is_gone(&name).await;

    let calls = env.azure.calls(Endpoint::EntraToken);
    let refused = namespace
        .refused_pod(&pod("other", "ClusterGenerator/contoso"))
        .await;
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("--namespaces"), "{}", refused.message);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), calls);
    assert_eq!(
        env.webhook.logged("forbidden"),
        0,
        "the webhook needs no other right"
    );
}
