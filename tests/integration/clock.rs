//! Azure's clock and ours differ. Tokens say by Azure's when they end; everything is planned by ours.

use azure_emulator::Endpoint;
use jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::json;
use testkit::{
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name},
};

#[testkit::test]
async fn tokens_that_seem_to_end_before_they_begin_are_renewed_in_their_time() {
    // As far as Entra bears it. Taken at its word, each token would have ended more than four minutes ago.
    let env = TestEnv::leading(&[], |world| {
        world["clock"] = json!({"offset": "-280s"});
        world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    })
    .await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    for _ in 0..3 {
        let before = namespace.expires_at(&name).await;
        assert!(before > Timestamp::now(), "{before} is past");
        eventually("it is renewed", async || {
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
    let (_, metrics) = env.webhook.admin_get("/metrics").await;
    let ahead = metrics
        .lines()
        .find_map(|line| line.strip_prefix("acr_pull_webhook_azure_clock_ahead_seconds "));
    let ahead: f64 = ahead.unwrap().parse().unwrap();
    assert!((-285.0..-275.0).contains(&ahead), "{ahead} s");
    let warned = env
        .webhook
        .log()
        .iter()
        .filter(|line| line.contains("synchronize the clocks"))
        .count();
    assert_eq!(warned, 1);
}

/// Attempt 25: what a registry claims about time affects its own pull secrets only.
#[testkit::test]
async fn a_token_that_expires_in_the_year_9989_is_used_and_stops_nothing() {
    let env = TestEnv::leading(&[], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "69800000h"});
    })
    .await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    let expires = namespace.expires_at(&name).await;
    assert!(expires > "9000-01-01T00:00:00Z".parse().unwrap(), "{expires}");
    namespace.create_pod(&pod("two", "contoso")).await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
    // The leader still works: it repairs a deleted object.
    let pull_secrets = namespace.pull_secrets();
    let before = pull_secrets.get(&name).await.unwrap().metadata.uid;
    pull_secrets
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    eventually("the pull secret is restored", async || {
        let restored = pull_secrets.get_opt(&name).await.unwrap()?;
        (restored.metadata.uid != before && restored.status?.is_ready()).then_some(())
    })
    .await;
    assert_eq!(env.webhook.metric("upkeep_panics_total").await, 0);
}
