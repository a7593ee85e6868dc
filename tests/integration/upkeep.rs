//! What the leader does for pull secrets after admission. Each test has a control plane of its own, whose only leader
//! is its webhook.

use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use serde_json::json;
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{from, pod, pull_secret_name, unnamed_pod},
};

/// The reasons of all warnings about an object, one for each occurrence.
pub async fn warnings_about(namespace: &TestNamespace, name: &str) -> Vec<String> {
    let mut all = namespace.events().await;
    all.retain(|event| {
        event.involved_object.name.as_deref() == Some(name) && event.type_.as_deref() == Some("Warning")
    });
    let times = |event: &Event| event.series.as_ref().and_then(|s| s.count).unwrap_or(1) as usize;
    all.into_iter()
        .flat_map(|event| vec![event.reason.clone().unwrap_or_default(); times(&event)])
        .collect()
}

/// Waits until a pull secret has a token.
pub async fn wait_until_ready(namespace: &TestNamespace, name: &str) {
    eventually(&format!("{name} has a token"), async || {
        namespace.status(name).await.is_ready().then_some(())
    })
    .await;
}

/// Entra is unavailable.
pub fn entra_down() -> Vec<Fault> {
    let effect = Effect::status(StatusCode::SERVICE_UNAVAILABLE);
    vec![Fault::new(Endpoint::EntraToken, effect)]
}

#[testkit::test]
async fn a_used_pull_secret_is_renewed_in_place_before_it_expires() {
    let env = TestEnv::leading(&[], token_lifetime(12)).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    let uid = namespace.secrets().get(&name).await.unwrap().metadata.uid;
    for renewal in 1..=4 {
        let before = namespace.expires_at(&name).await;
        let token = namespace.credentials(&name).await;
        eventually("the pull secret is renewed", async || {
            let now = namespace.expires_at(&name).await;
            assert!(
                now > Timestamp::now(),
                "the token has expired before renewal {renewal}"
            );
            (now > before).then_some(())
        })
        .await;
        assert_ne!(namespace.credentials(&name).await, token);
    }
    assert_eq!(namespace.secrets().get(&name).await.unwrap().metadata.uid, uid);
    assert!(namespace.status(&name).await.is_ready());
    // Each renewal costs one token.
    let renewed = env
        .webhook
        .metric("renewals_total{outcome=\"Renewed\",reason=\"Ok\"}")
        .await;
    assert!(
        env.azure.calls(Endpoint::EntraToken) as u64 <= renewed + 2,
        "{renewed} renewals"
    );
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn an_outage_is_reported_and_the_renewal_follows_it() {
    let env = TestEnv::leading(&[], token_lifetime(10)).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    env.azure.set_faults(&entra_down());
    eventually("the condition reports the outage", async || {
        let status = namespace.status(&name).await;
        let ready = &status.conditions[0];
        (ready.status == "False" && ready.reason == "EntraUnavailable").then_some(())
    })
    .await;
    eventually("one Event reports the outage", async || {
        let warnings = warnings_about(namespace, &name).await;
        assert!(warnings.len() <= 1, "{warnings:?}");
        (warnings == ["EntraUnavailable"]).then_some(())
    })
    .await;
    // A Pod that is created during the outage is admitted with the name of the pull secret.
    let created = namespace.create_pod(&unnamed_pod("contoso")).await;
    assert_eq!(pull_secret_name(&created), name);
    env.azure.clear_faults();
    wait_until_ready(namespace, &name).await;
    assert!(namespace.expires_at(&name).await > Timestamp::now());
}

#[testkit::test]
async fn the_leader_issues_the_token_of_a_killed_replica() {
    let mut env = TestEnv::leading(&[], |_| ()).await;
    env.azure.set_faults(&entra_down());
    let namespace = env.team_a.namespace.clone();
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());
    env.webhook.kill().await;
    env.azure.clear_faults();
    env.restart_webhook().await;
    eventually("the Secret is written without another review", async || {
        namespace.secrets().get_opt(&name).await.unwrap()
    })
    .await;
    wait_until_ready(&namespace, &name).await;
}

#[testkit::test]
async fn only_unused_pull_secrets_are_collected_after_the_grace() {
    let env = TestEnv::leading(&["--unused-grace=4s", "--unused-notice=4s"], |_| ()).await;
    let namespace = &env.team_a.namespace;
    namespace.apply_generator("other", json!({})).await;
    let unused = pull_secret_name(&namespace.create_pod(&pod("unused", "contoso")).await);
    let used = pull_secret_name(&namespace.create_pod(&pod("used", "other")).await);
    namespace.delete_pod("unused").await;
    eventually("the leader announces the collection", async || {
        let found = namespace.pull_secrets().get_opt(&unused).await.unwrap()?;
        found.status?.unused_since
    })
    .await;
    // A Pod that is created now prevents the collection.
    namespace.create_pod(&pod("back", "contoso")).await;
    eventually("the announcement is withdrawn", async || {
        namespace
            .status(&unused)
            .await
            .unused_since
            .is_none()
            .then_some(())
    })
    .await;
    let uid = namespace.secrets().get(&unused).await.unwrap().metadata.uid;
    eventually("grace and notice have passed", async || {
        // The creation of the Pod withdrew the announcement.
        let age = Timestamp::now().duration_since(
            namespace
                .pods()
                .get("back")
                .await
                .unwrap()
                .creation_timestamp()?
                .0,
        );
        (age.as_secs() > 10).then_some(())
    })
    .await;
    assert_eq!(namespace.secrets().get(&unused).await.unwrap().metadata.uid, uid);

    namespace.delete_pod("back").await;
    namespace.wait_until_secret_is_gone(&unused).await;
    assert!(namespace.pull_secrets().get_opt(&unused).await.unwrap().is_none());
    env.webhook
        .wait_until_counted("pull_secrets_collected_total", 1)
        .await;
    namespace.credentials(&used).await;
    // The next Pod creates the pull secret again.
    let again = pull_secret_name(&namespace.create_pod(&pod("again", "contoso")).await);
    assert_eq!(again, unused);
    namespace.credentials(&unused).await;
}

/// `kubectl debug --copy-to` copies the pull secrets of a Pod, and neither its labels nor its annotations.
#[testkit::test]
async fn a_pull_secret_that_only_a_copied_pod_names_is_renewed() {
    let env = TestEnv::leading(&["--unused-grace=1s", "--unused-notice=1s"], token_lifetime(24)).await;
    let namespace = &env.team_a.namespace;
    let original = namespace.create_pod(&pod("app", "contoso")).await;
    let name = pull_secret_name(&original);
    let copy = json!({
        "metadata": {"name": "copy"},
        "spec": {
            "serviceAccountName": "app",
            "containers": [{"name": "app", "image": "example.com/app"}],
            "imagePullSecrets": [{"name": name}],
        },
    });
    namespace.create_pod(&from(copy)).await;
    namespace.delete_pod("app").await;
    for _ in 0..2 {
        let before = namespace.expires_at(&name).await;
        eventually("the pull secret is renewed", async || {
            let now = namespace.expires_at(&name).await;
            assert!(now > Timestamp::now(), "the token has expired");
            (now > before).then_some(())
        })
        .await;
    }
    // A token that cannot be renewed does not prevent the deletion.
    env.azure.set_faults(&entra_down());
    eventually("the renewal has failed", async || {
        namespace.status(&name).await.has_failed().then_some(())
    })
    .await;
    namespace.delete_pod("copy").await;
    namespace.wait_until_secret_is_gone(&name).await;
}

#[testkit::test]
async fn a_deleted_pull_secret_of_a_live_pod_is_restored() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    let uid = namespace.pull_secret(&name).await.uid();
    namespace.delete_pull_secret(&name).await;
    eventually("the pull secret and its Secret are recreated", async || {
        let found = namespace.pull_secrets().get_opt(&name).await.unwrap()?;
        let secret = namespace.secrets().get_opt(&name).await.unwrap()?;
        let owner = secret.owner_references()[0].uid.clone();
        (found.uid() != uid && Some(owner) == found.uid() && found.status?.is_ready()).then_some(())
    })
    .await;
}
