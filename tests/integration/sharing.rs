//! How few calls serve how many Pods.

use azure_emulator::Endpoint;
use futures::future::join_all;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use testkit::{
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, unnamed_pod},
    review::{post, review},
};

#[testkit::test]
async fn two_hundred_pods_at_once_cost_one_token() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let pods: Vec<_> = (0..200).map(|n| pod(&format!("app-{n}"), "contoso")).collect();
    let made = join_all(pods.iter().map(|pod| namespace.create_pod(pod))).await;
    let names: std::collections::HashSet<_> = made.iter().map(pull_secret_name).collect();
    assert_eq!((made.len(), names.len()), (200, 1));
    assert_eq!(
        (
            env.azure.calls(Endpoint::EntraToken),
            env.azure.calls(Endpoint::AcrExchange)
        ),
        (1, 1)
    );
    assert_eq!(
        env.webhook
            .metric("upstream_requests_total{hop=\"TokenRequest\",reason=\"Ok\"}")
            .await,
        1
    );
}

#[testkit::test]
async fn a_fresh_pull_secret_is_answered_without_any_call() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace.create_pod(&pod("one", "contoso")).await;
    for n in 0..5 {
        namespace.create_pod(&pod(&format!("more-{n}"), "contoso")).await;
    }
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
    assert_eq!(
        env.webhook
            .metric("upstream_requests_total{hop=\"TokenRequest\",reason=\"Ok\"}")
            .await,
        1
    );
}

#[testkit::test]
async fn a_restarted_webhook_knows_what_was_minted_before() {
    let mut env = TestEnv::start().await;
    let namespace = env.team_a.namespace.clone();
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    assert!(env.webhook.terminate().await, "it ends by itself on SIGTERM");
    env.restart_webhook().await;
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("two", "contoso")).await),
        name
    );
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn two_identities_have_two_subjects_and_neither_opens_the_others_repository() {
    let env = TestEnv::start().await;
    let (a, b) = (&env.team_a, &env.team_b);
    let of_a = pull_secret_name(&a.namespace.create_pod(&pod("app", "contoso")).await);
    let of_b = pull_secret_name(&b.namespace.create_pod(&pod("app", "contoso")).await);
    let mut subjects: Vec<_> = env
        .azure
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
        env.assert_pulls(namespace, name, own).await;
        let refused = env.pull_status(namespace, name, others).await;
        assert!(refused == 401 || refused == 403, "{refused}");
    }
}

#[testkit::test]
async fn a_deleted_acr_pull_secret_is_made_again_for_the_next_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    namespace.delete_pull_secret(&name).await;
    namespace.wait_until_secret_is_gone(&name).await;
    namespace.create_pod(&pod("two", "contoso")).await;
    namespace.credentials(&name).await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 2);
}

#[testkit::test]
async fn a_spoilt_acr_pull_secret_blinds_nobody_to_the_others() {
    let mut env = TestEnv::start().await;
    let namespace = env.team_a.namespace.clone();
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    // The API server's schema lets such a time pass.
    let spoilt = Patch::Merge(json!({"status": {"expirationTime": "2026-01-01T00:00:00+99:99"}}));
    let request = namespace
        .pull_secrets()
        .patch_status(&name, &PatchParams::default(), &spoilt)
        .await;
    assert!(
        request.is_err_and(|e| !matches!(e, kube::Error::Api(_))),
        "written, and unreadable"
    );
    env.webhook.terminate().await;
    env.restart_webhook().await;
    let other = env.team_b.namespace.clone();
    let fine = pull_secret_name(&other.create_pod(&pod("app", "contoso")).await);
    other.credentials(&fine).await;
    // Nor does it have to be mended by hand for ever: deleting it is enough.
    namespace
        .pull_secrets()
        .delete(&name, &DeleteParams::default())
        .await
        .ok();
    eventually("a Pod of its own namespace is served again", async || {
        let next = unnamed_pod("contoso");
        namespace.try_create_pod(&next).await.ok()
    })
    .await;
}

/// One replica sees a change of the generator, and the other one does not yet.
#[testkit::test]
async fn a_replica_whose_watch_lags_does_not_put_back_the_token_of_before() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    let ahead = env.replica().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    let watched = "/apis/generators.external-secrets.io/v1alpha1/acraccesstokens";
    env.proxy()
        .refuse(watched, http::StatusCode::SERVICE_UNAVAILABLE, usize::MAX);
    let scope = format!("repository:{}:pull", env.team_a.repository);
    namespace
        .apply_generator("contoso", json!({"scope": scope}))
        .await;
    let review = review(namespace, &unnamed_pod("contoso"));
    let url = format!("{}?timeout=10s", ahead.url());
    let status = eventually(
        "the replica that sees the change makes a token by it",
        async || {
            let reply = ahead.client().post(&url).json(&review).send().await.unwrap();
            assert_eq!(reply.status(), 200);
            let status = namespace.status(&name).await;
            status.scope.is_some().then_some(status)
        },
    )
    .await;
    eventually(
        "the other replica sees that token, and reads the generator again",
        async || {
            post(&env, &review).await;
            let mut log = env.webhook.log().into_iter();
            log.any(|line| line.contains("made from other inputs a moment ago"))
                .then_some(())
        },
    )
    .await;
    assert_eq!(namespace.status(&name).await, status, "nothing was written");
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 2);
}
