//! A webhook with the rights of Roles, which serves only some namespaces.

use azure_emulator::Endpoint;
use k8s_openapi::api::rbac::v1::RoleBinding;
use testkit::{
    azure::token_lifetime,
    control_plane::apply,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
};

/// A leader with these flags and without its ClusterRole. The RoleBinding grants the same rights in a namespace; that of
/// team A exists.
async fn leading_by_roles(flags: &[&str]) -> (TestEnv, RoleBinding) {
    let mut env = TestEnv::leading(flags, token_lifetime(12)).await;
    let binding = env.revoke_cluster_role().await;
    apply(&env.team_a.namespace.api(), &binding).await;
    env.restart_webhook().await;
    (env, binding)
}

#[testkit::test]
async fn roles_suffice_for_admission_renewal_and_collection() {
    let flags = ["--namespaces=TEAM_A", "--unused-grace=3s", "--unused-notice=3s"];
    let (env, _) = leading_by_roles(&flags).await;
    let namespace = &env.team_a.namespace;

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

/// An owner of one namespace can delete it, and an administrator can list a namespace before it exists.
#[testkit::test]
async fn a_listed_namespace_may_be_created_later_and_deleted() {
    const LATER: &str = "later";
    let flags = ["--namespaces=TEAM_A,later"];
    let (mut env, binding) = leading_by_roles(&flags).await;
    let namespace = env.team_a.namespace.clone();
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    env.webhook.wait_until_leader().await;
    namespace.wait_for_renewals(&name, 1).await;

    let later = env
        .create_namespace(LATER, env.label(), env.team_a.client_id)
        .await;
    apply(&later.api(), &binding).await;
    let _ = pull_secret_name(&later.retry_create_pod(&unnamed_pod("contoso")).await);

    let failing = async || env.webhook.metric("watches_failing{watch=\"Pods\"}").await;
    eventually("the watches of the new namespace work", async || {
        (failing().await == 0).then_some(())
    })
    .await;

    later.delete().await;
    eventually("the watches of the deleted namespace fail", async || {
        (failing().await == 1).then_some(())
    })
    .await;
    namespace.wait_for_renewals(&name, 2).await;
    assert_eq!(env.webhook.admin_get("/readyz").await, (200, "ok".to_owned()));
    // A replica that starts now is ready too, and its leader works.
    env.restart_webhook().await;
    namespace.wait_for_renewals(&name, 1).await;
    namespace.create_pod(&unnamed_pod("contoso")).await;
}
