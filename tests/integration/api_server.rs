//! The API server goes away and comes back.

use futures::future::join_all;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use testkit::{
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
};

/// Every kind that a leader watches, as paths call it, but for Events, which API servers forget only after an hour.
const WATCHED: [&str; 6] = [
    "acraccesstokens",
    "clustergenerators",
    "serviceaccounts",
    "namespaces",
    "acrpullsecrets",
    "pods",
];

/// Creates Pods without a pause, while there is an API server, until it is told to stop; returns those that were created.
async fn load(env: &TestEnv, stop: &AtomicBool) -> Vec<Pod> {
    let pods = env.team_a.namespace.pods();
    let mut made = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match pods.create(&PostParams::default(), &unnamed_pod("contoso")).await {
            Ok(pod) => made.push(pod),
            // Nobody is there to be asked. To ask on would leave no processor for the API server to begin with.
            Err(_) => env.cluster.api_server_is_ready().await,
        }
    }
    made
}

/// Whatever is new is known, and what is old is renewed.
async fn works(env: &TestEnv, name: &str, generator: &str) {
    let namespace = &env.team_a.namespace;
    namespace.apply_generator(generator, json!({})).await;
    eventually("a Pod of a new generator is admitted", async || {
        let made = namespace.try_create_pod(&unnamed_pod(generator)).await;
        made.ok()
    })
    .await;
    let began = Timestamp::now();
    eventually("the leader renews", async || {
        let status = namespace.status(name).await;
        (status.is_ready() && status.last_renewal_time?.0 > began).then_some(())
    })
    .await;
    eventually("it is ready", async || {
        (env.webhook.admin_get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}

#[testkit::test]
async fn an_api_server_that_restarts_or_is_silent_for_a_minute_is_borne_without_a_restart() {
    let env = TestEnv::leading(&[], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "30s"});
    })
    .await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);

    let stop = AtomicBool::new(false);
    let (made, ()) = tokio::join!(join_all((0..4).map(|_| load(&env, &stop))), async {
        env.cluster.kill_api_server().await;
        env.cluster.start_api_server().await;
        works(&env, &name, "after-restart").await;
        stop.store(true, Ordering::Relaxed);
    });
    let made: Vec<_> = made.into_iter().flatten().collect();
    assert!(made.len() > 20, "{} Pods were created", made.len());
    assert!(made.iter().all(|pod| pull_secret_name(pod) == name));

    env.cluster.freeze_api_server().await;
    let end = Timestamp::now() + 60.seconds();
    let mut told = None;
    while Timestamp::now() < end || told.is_none() {
        let (status, body) = env.webhook.admin_get("/readyz").await;
        assert_eq!(env.webhook.admin_get("/livez").await.0, 200, "it lives");
        if status == 503 {
            told = Some(body);
        } else {
            assert_eq!(told, None, "it is ready again, and nobody has answered");
        }
        assert!(Timestamp::now() < end + 60.seconds(), "it is ready still");
        tokio::task::yield_now().await;
    }
    assert!(told.unwrap().contains("API server unreachable"));
    env.cluster.thaw_api_server().await;
    works(&env, &name, "after-silence").await;
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn watches_that_have_expired_begin_anew() {
    let env = TestEnv::leading_through_proxy(&[], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    })
    .await;
    let name = pull_secret_name(&env.team_a.namespace.create_pod(&pod("app", "contoso")).await);
    // One that has just begun remembers nothing from before, nor does it tell of what went meanwhile.
    let uid = env.team_a.namespace.pull_secret(&name).await.uid();
    env.webhook.signal("STOP").await;
    env.team_a.namespace.delete_pull_secret(&name).await;
    env.cluster.kill_api_server().await;
    env.cluster.start_api_server().await;
    env.webhook.signal("CONT").await;
    eventually("what went unseen under a live Pod comes back", async || {
        let found = env
            .team_a
            .namespace
            .pull_secrets()
            .get_opt(&name)
            .await
            .unwrap()?;
        (found.uid() != uid && found.status.as_ref()?.is_ready()).then_some(())
    })
    .await;
    let heard = |what: &str| {
        let log = env.webhook.log();
        log.iter().filter(|line| line.contains(what)).count()
    };
    works(&env, &name, "after-restart").await;
    let before = heard("has expired");
    env.proxy().expire_watches(&WATCHED);
    eventually("each has been told so by the API server", async || {
        (heard("has expired") >= before + WATCHED.len()).then_some(())
    })
    .await;
    works(&env, &name, "after-expiry").await;
}
