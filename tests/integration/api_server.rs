//! The API server goes away and comes back.

use super::site::{Site, eventually, pod, pull_secret_name, unnamed};
use futures::future::join_all;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

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
async fn load(site: &Site, stop: &AtomicBool) -> Vec<Pod> {
    let pods = site.pods(&site.a.namespace);
    let mut made = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match pods.create(&PostParams::default(), &unnamed("contoso")).await {
            Ok(pod) => made.push(pod),
            // Nobody is there to be asked. To ask on would leave no processor for the API server to begin with.
            Err(_) => site.cluster.api_server_is_ready().await,
        }
    }
    made
}

/// Whatever is new is known, and what is old is renewed.
async fn works(site: &Site, name: &str, generator: &str) {
    let namespace = &site.a.namespace;
    site.generator(namespace, generator, json!({})).await;
    eventually("a Pod of a new generator is admitted", async || {
        let made = site
            .pods(namespace)
            .create(&PostParams::default(), &unnamed(generator))
            .await;
        made.ok()
    })
    .await;
    let began = Timestamp::now();
    eventually("the leader renews", async || {
        let status = site.status(namespace, name).await;
        (status.is_ready() && status.last_renewal_time?.0 > began).then_some(())
    })
    .await;
    eventually("it is ready", async || {
        (site.webhook.admin_get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_restarts_or_is_silent_for_a_minute_is_borne_without_a_restart() {
    let site = Site::leading(&[], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "30s"});
    })
    .await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);

    let stop = AtomicBool::new(false);
    let (made, ()) = tokio::join!(join_all((0..4).map(|_| load(&site, &stop))), async {
        site.cluster.kill_api_server().await;
        site.cluster.start_api_server().await;
        works(&site, &name, "after-restart").await;
        stop.store(true, Ordering::Relaxed);
    });
    let made: Vec<_> = made.into_iter().flatten().collect();
    assert!(made.len() > 20, "{} Pods were created", made.len());
    assert!(made.iter().all(|pod| pull_secret_name(pod) == name));

    site.cluster.freeze_api_server().await;
    let end = Timestamp::now() + 60.seconds();
    let mut told = None;
    while Timestamp::now() < end || told.is_none() {
        let (status, body) = site.webhook.admin_get("/readyz").await;
        assert_eq!(site.webhook.admin_get("/livez").await.0, 200, "it lives");
        if status == 503 {
            told = Some(body);
        } else {
            assert_eq!(told, None, "it is ready again, and nobody has answered");
        }
        assert!(Timestamp::now() < end + 60.seconds(), "it is ready still");
        tokio::task::yield_now().await;
    }
    assert!(told.unwrap().contains("API server unreachable"));
    site.cluster.thaw_api_server().await;
    works(&site, &name, "after-silence").await;
    site.assert_no_secret_was_logged();
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_have_expired_begin_anew() {
    let site = Site::leading_through_a_gate(&[], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    })
    .await;
    let name = pull_secret_name(&site.create(&site.a.namespace, &pod("app", "contoso")).await);
    // One that has just begun remembers nothing from before, nor does it tell of what went meanwhile.
    let uid = site
        .pull_secrets(&site.a.namespace)
        .get(&name)
        .await
        .unwrap()
        .uid();
    site.webhook.signal("STOP").await;
    site.pull_secrets(&site.a.namespace)
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    site.cluster.kill_api_server().await;
    site.cluster.start_api_server().await;
    site.webhook.signal("CONT").await;
    eventually("what went unseen under a live Pod comes back", async || {
        let found = site
            .pull_secrets(&site.a.namespace)
            .get_opt(&name)
            .await
            .unwrap()?;
        (found.uid() != uid && found.status.as_ref()?.is_ready()).then_some(())
    })
    .await;
    let heard = |what: &str| {
        let log = site.webhook.log();
        log.iter().filter(|line| line.contains(what)).count()
    };
    works(&site, &name, "after-restart").await;
    let before = heard("has expired");
    site.gate().expire(&WATCHED);
    eventually("each has been told so by the API server", async || {
        (heard("has expired") >= before + WATCHED.len()).then_some(())
    })
    .await;
    works(&site, &name, "after-expiry").await;
}
