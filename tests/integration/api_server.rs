//! The API server stops and starts again.

use crate::certificates::loaded;
use futures::future::join_all;
use jiff::{Timestamp, ToSpan};
use kube::{ResourceExt, api::PostParams};
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
    turns,
};

/// The plural names of all kinds that a leader watches, without Events, whose resource versions are compacted only
/// after an hour.
const WATCHED: [&str; 6] = [
    "acraccesstokens",
    "clustergenerators",
    "serviceaccounts",
    "namespaces",
    "acrpullsecrets",
    "pods",
];

/// Creates Pods until `stop`, and asserts that each has this pull secret.
async fn load(env: &TestEnv, name: &str, stop: &AtomicBool, created: &AtomicUsize) {
    let (pods, mut turns) = (env.team_a.namespace.pods(), turns());
    while !stop.load(Ordering::Relaxed) {
        turns.tick().await;
        match pods.create(&PostParams::default(), &unnamed_pod("contoso")).await {
            Ok(pod) => {
                assert_eq!(pull_secret_name(&pod), name);
                created.fetch_add(1, Ordering::Relaxed);
            }
            // More requests would take the processor from the starting API server.
            Err(_) => env.cluster.api_server_is_ready().await,
        }
    }
}

/// Asserts that the webhook sees new objects, renews old ones and is ready.
async fn assert_works(env: &TestEnv, name: &str, generator: &str) {
    let namespace = &env.team_a.namespace;
    namespace.apply_generator(generator, json!({})).await;
    namespace.retry_create_pod(&unnamed_pod(generator)).await;
    let began = Timestamp::now();
    eventually("the leader renews", async || {
        let status = namespace.status(name).await;
        (status.is_ready() && status.last_renewal_time?.0 > began).then_some(())
    })
    .await;
    eventually("the webhook is ready", async || {
        (env.webhook.admin_get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}

#[testkit::test]
async fn the_webhook_survives_a_restarting_and_a_silent_api_server() {
    let env = TestEnv::leading(&[], token_lifetime(30)).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);

    let (stop, created) = (AtomicBool::new(false), AtomicUsize::new(0));
    tokio::join!(
        join_all((0..4).map(|_| load(&env, &name, &stop, &created))),
        async {
            env.cluster.kill_api_server().await;
            env.cluster.start_api_server().await;
            assert_works(&env, &name, "after-restart").await;
            loaded(&created, 20).await;
            stop.store(true, Ordering::Relaxed);
        }
    );

    env.cluster.freeze_api_server().await;
    let end = Timestamp::now() + 60.seconds();
    let (mut message, mut turns) = (None, turns());
    while Timestamp::now() < end || message.is_none() {
        turns.tick().await;
        let (status, body) = env.webhook.admin_get("/readyz").await;
        assert_eq!(
            env.webhook.admin_get("/livez").await.0,
            200,
            "the webhook is live"
        );
        if status == 503 {
            message = Some(body);
        } else {
            assert_eq!(
                message, None,
                "the webhook is ready again without an answer of the API server"
            );
        }
        assert!(
            Timestamp::now() < end + 60.seconds(),
            "the webhook is still ready"
        );
    }
    assert!(message.unwrap().contains("API server unreachable"));
    env.cluster.thaw_api_server().await;
    assert_works(&env, &name, "after-silence").await;
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn expired_watches_start_again() {
    let env = TestEnv::leading_through_proxy(&[], token_lifetime(12)).await;
    let name = pull_secret_name(&env.team_a.namespace.create_pod(&pod("app", "contoso")).await);
    // A new API server has no old resource versions, and reports no deletion that precedes it.
    let uid = env.team_a.namespace.pull_secret(&name).await.uid();
    env.webhook.signal("STOP").await;
    env.team_a.namespace.delete_pull_secret(&name).await;
    env.cluster.kill_api_server().await;
    env.cluster.start_api_server().await;
    env.webhook.signal("CONT").await;
    env.team_a.namespace.wait_until_recreated(&name, &uid).await;
    assert_works(&env, &name, "after-restart").await;
    let before = env.webhook.logged("has expired");
    env.proxy().expire_watches(&WATCHED);
    eventually("the API server has ended each watch", async || {
        (env.webhook.logged("has expired") >= before + WATCHED.len()).then_some(())
    })
    .await;
    assert_works(&env, &name, "after-expiry").await;
}
