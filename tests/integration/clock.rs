//! Azure's clock and ours differ. Tokens say by Azure's when they end; everything is planned by ours.

use super::site::{Site, eventually, pod, pull_secret_name};
use azure_emulator::Endpoint;
use jiff::Timestamp;
use kube::api::DeleteParams;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_seem_to_end_before_they_begin_are_renewed_in_their_time() {
    // As far as Entra bears it. Taken at its word, each token would have ended more than four minutes ago.
    let site = Site::leading(&[], |world| {
        world["clock"] = json!({"offset": "-280s"});
        world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    })
    .await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    for _ in 0..3 {
        let before = site.status(namespace, &name).await.expiration_time.unwrap().0;
        assert!(before > Timestamp::now(), "{before} is past");
        eventually("it is renewed", async || {
            let now = site.status(namespace, &name).await.expiration_time.unwrap().0;
            (now > before).then_some(())
        })
        .await;
    }
    let renewed = site
        .metric("renewals_total{outcome=\"Renewed\",reason=\"Ok\"}")
        .await;
    assert!(
        site.calls(Endpoint::EntraToken) as u64 <= renewed + 2,
        "{renewed} renewals"
    );
    let (_, metrics) = site.webhook.admin_get("/metrics").await;
    let ahead = metrics
        .lines()
        .find_map(|line| line.strip_prefix("acr_pull_webhook_azure_clock_ahead_seconds "));
    let ahead: f64 = ahead.unwrap().parse().unwrap();
    assert!((-285.0..-275.0).contains(&ahead), "{ahead} s");
    let warned = site
        .webhook
        .log()
        .iter()
        .filter(|line| line.contains("synchronize the clocks"))
        .count();
    assert_eq!(warned, 1);
}

/// Attempt 25: what a registry claims about time affects its own pull secrets only.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_year_9989_is_used_and_stops_nothing() {
    let site = Site::leading(&[], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "69800000h"});
    })
    .await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    let expires = site.status(namespace, &name).await.expiration_time.unwrap().0;
    assert!(expires > "9000-01-01T00:00:00Z".parse().unwrap(), "{expires}");
    site.create(namespace, &pod("two", "contoso")).await;
    assert_eq!(site.calls(Endpoint::EntraToken), 1);
    // The leader still works: it repairs a deleted object.
    let pull_secrets = site.pull_secrets(namespace);
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
    assert_eq!(site.metric("upkeep_panics_total").await, 0);
}
