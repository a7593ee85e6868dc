//! How few calls serve how many Pods.

use super::site::{Site, eventually, pod, pull_secret_name, unnamed};
use azure_emulator::Endpoint;
use futures::future::join_all;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_pods_at_once_cost_one_token() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let pods: Vec<_> = (0..200).map(|n| pod(&format!("app-{n}"), "contoso")).collect();
    let made = join_all(pods.iter().map(|pod| site.create(namespace, pod))).await;
    let names: std::collections::HashSet<_> = made.iter().map(pull_secret_name).collect();
    assert_eq!((made.len(), names.len()), (200, 1));
    assert_eq!(
        (
            site.calls(Endpoint::EntraToken),
            site.calls(Endpoint::AcrExchange)
        ),
        (1, 1)
    );
    assert_eq!(
        site.metric("upstream_requests_total{hop=\"TokenRequest\",reason=\"Ok\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn a_fresh_pull_secret_is_answered_without_any_call() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    site.create(namespace, &pod("one", "contoso")).await;
    for n in 0..5 {
        site.create(namespace, &pod(&format!("more-{n}"), "contoso"))
            .await;
    }
    assert_eq!(site.calls(Endpoint::EntraToken), 1);
    assert_eq!(
        site.metric("upstream_requests_total{hop=\"TokenRequest\",reason=\"Ok\"}")
            .await,
        1
    );
}

#[tokio::test]
async fn a_restarted_webhook_knows_what_was_minted_before() {
    let mut site = Site::start().await;
    let namespace = site.a.namespace.clone();
    let name = pull_secret_name(&site.create(&namespace, &pod("one", "contoso")).await);
    assert!(site.webhook.terminate().await, "it ends by itself on SIGTERM");
    site.restart_webhook().await;
    assert_eq!(
        pull_secret_name(&site.create(&namespace, &pod("two", "contoso")).await),
        name
    );
    assert_eq!(site.calls(Endpoint::EntraToken), 1);
}

#[tokio::test]
async fn two_identities_have_two_subjects_and_neither_opens_the_others_repository() {
    let site = Site::start().await;
    let (a, b) = (&site.a, &site.b);
    let of_a = pull_secret_name(&site.create(&a.namespace, &pod("app", "contoso")).await);
    let of_b = pull_secret_name(&site.create(&b.namespace, &pod("app", "contoso")).await);
    let mut subjects: Vec<_> = site
        .records(Endpoint::EntraToken)
        .into_iter()
        .filter_map(|r| r.subject)
        .collect();
    subjects.sort();
    assert_eq!(
        subjects,
        [&a.namespace, &b.namespace].map(|n| format!("system:serviceaccount:{n}:app"))
    );
    for (namespace, name, own, others) in [
        (&a.namespace, &of_a, a.repository, b.repository),
        (&b.namespace, &of_b, b.repository, a.repository),
    ] {
        assert_eq!(
            site.opens(namespace, name, own).await,
            502,
            "authorised; no registry is behind it"
        );
        let refused = site.opens(namespace, name, others).await;
        assert!(refused == 401 || refused == 403, "{refused}");
    }
}

#[tokio::test]
async fn a_deleted_acr_pull_secret_is_made_again_for_the_next_pod() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    site.pull_secrets(namespace)
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    site.secret_is_collected(namespace, &name).await;
    site.create(namespace, &pod("two", "contoso")).await;
    site.credentials(namespace, &name).await;
    assert_eq!(site.calls(Endpoint::EntraToken), 2);
}

#[tokio::test]
async fn a_spoilt_acr_pull_secret_blinds_nobody_to_the_others() {
    let mut site = Site::start().await;
    let namespace = site.a.namespace.clone();
    let name = pull_secret_name(&site.create(&namespace, &pod("one", "contoso")).await);
    // The API server's schema lets such a time pass.
    let spoilt = Patch::Merge(json!({"status": {"expirationTime": "2026-01-01T00:00:00+99:99"}}));
    let request = site
        .pull_secrets(&namespace)
        .patch_status(&name, &PatchParams::default(), &spoilt)
        .await;
    assert!(
        request.is_err_and(|e| !matches!(e, kube::Error::Api(_))),
        "written, and unreadable"
    );
    site.webhook.terminate().await;
    site.restart_webhook().await;
    let other = site.b.namespace.clone();
    let fine = pull_secret_name(&site.create(&other, &pod("app", "contoso")).await);
    site.credentials(&other, &fine).await;
    // Nor does it have to be mended by hand for ever: deleting it is enough.
    site.pull_secrets(&namespace)
        .delete(&name, &DeleteParams::default())
        .await
        .ok();
    eventually("a Pod of its own namespace is served again", async || {
        let next = unnamed("contoso");
        site.pods(&namespace)
            .create(&Default::default(), &next)
            .await
            .ok()
    })
    .await;
}

/// One replica sees a change of the generator, and the other one does not yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_watch_lags_does_not_put_back_the_token_of_before() {
    let site = Site::leading_through_a_gate(&[], |_| ()).await;
    let ahead = site.replica().await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    let watched = "/apis/generators.external-secrets.io/v1alpha1/acraccesstokens";
    site.gate()
        .refuse(watched, http::StatusCode::SERVICE_UNAVAILABLE, usize::MAX);
    let scope = format!("repository:{}:pull", site.a.repository);
    site.generator(namespace, "contoso", json!({"scope": scope}))
        .await;
    let review = super::review::review(namespace, &unnamed("contoso"));
    let url = format!("{}?timeout=10s", ahead.url());
    let status = eventually(
        "the replica that sees the change makes a token by it",
        async || {
            let reply = ahead.client().post(&url).json(&review).send().await.unwrap();
            assert_eq!(reply.status(), 200);
            let status = site.status(namespace, &name).await;
            status.scope.is_some().then_some(status)
        },
    )
    .await;
    eventually(
        "the other replica sees that token, and reads the generator again",
        async || {
            super::review::post(&site, &review).await;
            let mut log = site.webhook.log().into_iter();
            log.any(|line| line.contains("made from other inputs a moment ago"))
                .then_some(())
        },
    )
    .await;
    assert_eq!(site.status(namespace, &name).await, status, "nothing was written");
    assert_eq!(site.calls(Endpoint::EntraToken), 2);
}
