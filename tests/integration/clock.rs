//! The clocks of Azure and of the machine differ. A token's expiration is a time of Azure's clock; renewals follow the
//! machine's clock.

use azure_emulator::Endpoint;
use jiff::Timestamp;
use serde_json::json;
use testkit::{
    azure::{set_token_lifetime, token_lifetime},
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name},
};

#[testkit::test]
async fn tokens_are_renewed_in_time_despite_a_clock_difference() {
    // Entra accepts this difference. By the machine's clock, each token expired more than four minutes ago.
    let env = TestEnv::leading(&[], |world| {
        world["clock"] = json!({"offset": "-280s"});
        token_lifetime(12)(world);
    })
    .await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    for _ in 0..3 {
        let before = namespace.expires_at(&name).await;
        assert!(before > Timestamp::now(), "{before} has passed");
        eventually("the pull secret is renewed", async || {
            let now = namespace.expires_at(&name).await;
            (now > before).then_some(())
        })
        .await;
    }
    let renewed = env
        .webhook
        .metric("renewals_total{outcome=\"Renewed\",reason=\"Ok\"}")
        .await;
    assert!(
        env.azure.calls(Endpoint::EntraToken) as u64 <= renewed + 2,
        "{renewed} renewals"
    );
    let ahead = env.webhook.metric_f64("azure_clock_ahead_seconds").await;
    assert!((-285.0..-275.0).contains(&ahead), "{ahead} s");
    assert_eq!(env.webhook.logged("synchronize the clocks"), 1);
}

/// What a registry claims about time affects its own pull secrets only.
#[testkit::test]
async fn a_token_that_expires_in_the_year_9989_is_used() {
    let env = TestEnv::leading(&[], |world| {
        set_token_lifetime(world, "69800000h");
    })
    .await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    let expires = namespace.expires_at(&name).await;
    assert!(expires > "9000-01-01T00:00:00Z".parse().unwrap(), "{expires}");
    namespace.create_pod(&pod("two", "contoso")).await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
    // The leader still restores a deleted object.
    let uid = namespace.pull_secret(&name).await.metadata.uid;
    namespace.delete_pull_secret(&name).await;
    namespace.wait_until_recreated(&name, &uid).await;
    assert_eq!(env.webhook.metric("upkeep_panics_total").await, 0);
}
