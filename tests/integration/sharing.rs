//! How many Pods share one token.

use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use futures::future::join_all;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Instant;
use testkit::{
    env::TestEnv,
    eventually,
    objects::{CLIENT_ID, pod, pull_secret_name, unnamed_pod, with_account},
    review::{post, review},
};

#[testkit::test]
async fn two_hundred_simultaneous_pods_cost_one_token() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let pods: Vec<_> = (0..200).map(|n| pod(&format!("app-{n}"), "contoso")).collect();
    let created = join_all(pods.iter().map(|pod| namespace.create_pod(pod))).await;
    let names: std::collections::HashSet<_> = created.iter().map(pull_secret_name).collect();
    assert_eq!((created.len(), names.len()), (200, 1));
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
async fn ten_pods_of_a_throttled_application_cost_one_call() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let throttled = Effect::retry_after(StatusCode::TOO_MANY_REQUESTS, 60);
    env.azure
        .set_faults(&[Fault::new(Endpoint::EntraToken, throttled)]);
    let review = review(namespace, &unnamed_pod("contoso"));
    let answers = join_all((0..10).map(|_| post(&env, &review))).await;
    for answer in &answers {
        let response = &answer["response"];
        assert_eq!(response["allowed"], true, "{answer}");
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(warning.contains("EntraThrottled"), "{warning}");
    }
    for n in 0..10 {
        namespace.create_pod(&pod(&format!("later-{n}"), "contoso")).await;
    }
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn ten_pods_with_a_wrong_client_id_cost_few_calls() {
    const UNKNOWN: &str = "cccccccc-cccc-cccc-cccc-cccccccccccc";
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_service_account("stranger", &[(CLIENT_ID, UNKNOWN)])
        .await;
    let stranger = with_account(unnamed_pod("contoso"), "stranger");
    let start = Instant::now();
    // The first refusal deletes its ACRPullSecret. A Pod that comes during this deletion causes another call.
    let mut refusals = vec![namespace.refused_pod(&stranger).await];
    refusals.extend(join_all((0..10).map(|_| namespace.refused_pod(&stranger))).await);
    // The same as a controller, which creates the Pod again after each refusal.
    for _ in 0..10 {
        refusals.push(namespace.refused_pod(&stranger).await);
    }
    for status in refusals {
        assert!(status.message.contains("AADSTS700016"), "{}", status.message);
    }
    // A refusal is returned again for 1 s, 2 s, 4 s … without a call.
    let seconds = start.elapsed().as_secs();
    let calls = (0..).take_while(|n| 2_u64.pow(*n) - 1 <= seconds).count();
    let found = env.azure.calls_of(UNKNOWN, Endpoint::EntraToken);
    assert!((1..=calls).contains(&found), "{found} calls in {seconds} s");
    assert!(namespace.list_pull_secrets().await.is_empty());
}

#[testkit::test]
async fn an_admission_with_a_fresh_pull_secret_makes_no_call() {
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
async fn a_restarted_webhook_uses_existing_pull_secrets() {
    let mut env = TestEnv::start().await;
    let namespace = env.team_a.namespace.clone();
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    assert!(env.webhook.terminate().await, "the webhook ends after SIGTERM");
    env.restart_webhook().await;
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("two", "contoso")).await),
        name
    );
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);
}

#[testkit::test]
async fn two_identities_cannot_pull_the_repository_of_each_other() {
    let env = TestEnv::start().await;
    let (a, b) = (&env.team_a, &env.team_b);
    let of_a = pull_secret_name(&a.namespace.create_pod(&pod("app", "contoso")).await);
    let of_b = pull_secret_name(&b.namespace.create_pod(&pod("app", "contoso")).await);
    let mut subjects = env.azure.subjects();
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
async fn the_next_pod_recreates_a_deleted_acr_pull_secret() {
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
async fn an_undecodable_acr_pull_secret_does_not_affect_others() {
    let mut env = TestEnv::start().await;
    let namespace = env.team_a.namespace.clone();
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    // The schema of the API server permits this time.
    let invalid = Patch::Merge(json!({"status": {"expirationTime": "2026-01-01T00:00:00+99:99"}}));
    let request = namespace
        .pull_secrets()
        .patch_status(&name, &PatchParams::default(), &invalid)
        .await;
    assert!(
        request.is_err_and(|e| !matches!(e, kube::Error::Api(_))),
        "the status is written and cannot be decoded"
    );
    env.webhook.terminate().await;
    env.restart_webhook().await;
    let other = env.team_b.namespace.clone();
    let valid = pull_secret_name(&other.create_pod(&pod("app", "contoso")).await);
    other.credentials(&valid).await;
    // After its deletion, Pods of its own namespace are admitted again.
    namespace
        .pull_secrets()
        .delete(&name, &DeleteParams::default())
        .await
        .ok();
    namespace.retry_create_pod(&unnamed_pod("contoso")).await;
}

/// One replica has seen a change of the generator, and the other one has not.
#[testkit::test]
async fn a_replica_with_a_late_watch_does_not_restore_the_old_token() {
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
        "the replica that has seen the change issues a token",
        async || {
            let reply = ahead.client().post(&url).json(&review).send().await.unwrap();
            assert_eq!(reply.status(), 200);
            let status = namespace.status(&name).await;
            status.scope.is_some().then_some(status)
        },
    )
    .await;
    eventually(
        "the other replica sees that token and reads the generator again",
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
