//! How the leader determines which pull secrets are used: forged Pods, forged statuses and very many Pods.

use super::unaffected_by;
use acr_pull_webhook::{
    generator::ServiceAccount,
    names::ObjectName,
    pull_secret::name,
    reference::{Kind, Reference},
};
use azure_emulator::{Effect, Endpoint, Fault};
use futures::{StreamExt, stream};
use http::StatusCode;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{
    api_proxy::Write,
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{ANNOTATION, from, pod, pull_secret_name, unnamed_pod},
    webhook::Webhook,
};

/// Refusals until the end of a test.
const ALWAYS: usize = usize::MAX;
const FIRST_EXPIRATION: &str = "pull_secrets_first_expiration_timestamp_seconds";

/// The name of the pull secret of the generator `contoso` and this service account.
fn pull_secret_of(service_account: &str) -> String {
    let generator = Reference {
        kind: Kind::AccessToken,
        name: ObjectName::new("contoso").unwrap(),
    };
    let account = ServiceAccount::OfPod(ObjectName::new(service_account).unwrap());
    name(&generator, &account).to_string()
}

/// A Pod with the webhook's label and these annotations, which the API server does not send to the webhook.
fn forged_pod(pod: &str, annotations: Value) -> Pod {
    from(json!({
        "metadata": {"name": pod, "labels": {"acr-pull.dev/injected": "true"}, "annotations": annotations},
        "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "example.com/app"}]},
    }))
}

/// Creates Pods that claim many pull secrets, and Pods that claim the pull secret of a real generator without using it.
async fn create_forged_pods(namespace: &TestNamespace) {
    let claims = |count: u32| {
        let names: Vec<_> = (0..count).map(|n| format!("acr-pull-{n}")).collect();
        json!({"acr-pull.dev/pull-secrets": names.join(",")})
    };
    namespace.create_pod(&forged_pod("many", claims(2_000))).await;
    for n in 0..20 {
        let some = forged_pod(&format!("some-{n}"), claims(500));
        namespace.create_pod(&some).await;
    }
    let claim = json!({"acr-pull.dev/pull-secrets": pull_secret_of("app")});
    namespace.create_pod(&forged_pod("claim", claim)).await;
    let annotate = Patch::Merge(json!({"metadata": {"annotations": {ANNOTATION: "contoso"}}}));
    let params = PatchParams::default();
    namespace.pods().patch("claim", &params, &annotate).await.unwrap();
    // A kubelet can create mirror Pods in any namespace.
    let annotations = json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": "x",
        "acr-pull.dev/pull-secrets": pull_secret_of("default"), ANNOTATION: "contoso"});
    let mut mirror = forged_pod("mirror", annotations);
    mirror.spec.as_mut().unwrap().service_account_name = None;
    mirror.spec.as_mut().unwrap().node_name = Some("node".to_owned());
    namespace.create_pod(&mirror).await;
}

#[testkit::test]
async fn forged_annotations_cost_the_leader_no_memory_and_no_token() {
    let env = TestEnv::leading(&[], token_lifetime(12)).await;
    let (forged, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let clock = pull_secret_name(&other.create_pod(&pod("clock", "contoso")).await);
    let attempt = async {
        create_forged_pods(forged).await;
        other.wait_for_renewals(&clock, 3).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    let created = forged.list_pull_secrets().await;
    let created: Vec<_> = created.iter().map(ResourceExt::name_any).collect();
    assert!(created.is_empty(), "{created:?}");
    let calls = env.azure.calls_of(env.team_a.client_id, Endpoint::EntraToken);
    assert_eq!(calls, 0);
}

/// The restoration is repeated although no further event of a watch asks for it.
#[testkit::test]
async fn a_failed_restoration_is_retried() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    let uid = namespace.pull_secret(&name).await.uid();
    let path = format!("/api/v1/namespaces/{namespace}/pods/app");
    let attempt = async {
        env.proxy().refuse(&path, StatusCode::SERVICE_UNAVAILABLE, 1);
        namespace.delete_pull_secret(&name).await;
        env.proxy().wait_until_refused().await;
        namespace.wait_until_recreated(&name, &uid).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}

/// Times in a status that no clock has shown.
#[testkit::test]
async fn absurd_times_in_a_status_do_not_stop_the_leader() {
    let env = TestEnv::leading(&[], token_lifetime(12)).await;
    let (forged, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let clock = pull_secret_name(&other.create_pod(&pod("clock", "contoso")).await);
    let name = pull_secret_name(&forged.create_pod(&pod("app", "contoso")).await);
    let (first, last) = ("0001-01-01T00:00:00Z", "9999-12-30T22:00:00Z");
    let attempt = async {
        for (transition, expires, renewed) in [
            (last, Value::Null, Value::Null),
            (first, json!(last), json!(first)),
            (last, json!(first), json!(last)),
        ] {
            let status = json!({"expirationTime": expires, "lastRenewalTime": renewed, "conditions": [
                {"type": "Ready", "status": "False", "reason": "X", "message": "", "lastTransitionTime": transition}]});
            let patch = Patch::Merge(json!({"status": status}));
            let params = PatchParams::default();
            let pull_secrets = forged.pull_secrets();
            pull_secrets.patch_status(&name, &params, &patch).await.unwrap();
            other.wait_for_renewals(&clock, 1).await;
        }
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    assert_eq!(env.webhook.metric("upkeep_panics_total").await, 0);
}

/// Makes admission plugins after the webhook refuse the Pods of a namespace.
async fn refuse_after_webhook(namespace: &TestNamespace) {
    let label = "pod-security.kubernetes.io/enforce";
    namespace.set_label(label, json!("restricted")).await;
    let refused = eventually("Pods are refused after the webhook", async || {
        namespace.dry_run_pod(&unnamed_pod("contoso")).await.err()
    })
    .await;
    assert!(refused.to_string().contains("violates PodSecurity"), "{refused}");
}

/// Also while a cold admission waits for its token, and with a leader that is older than the grace.
#[testkit::test]
async fn the_grace_of_a_pull_secret_begins_when_it_is_first_seen() {
    const GRACE: i64 = 8;
    let flags = ["--unused-grace=8s", "--unused-notice=2s"];
    let env = TestEnv::leading_through_proxy(&flags, |_| ()).await;
    let namespace = &env.team_a.namespace;
    for generator in ["early", "cold", "refused"] {
        namespace.apply_generator(generator, json!({})).await;
    }
    let early = pull_secret_name(&namespace.create_pod(&pod("early", "early")).await);
    namespace.delete_pod("early").await;
    namespace.wait_until_secret_is_gone(&early).await;
    let marks = || env.proxy().writes(Write::UnusedSince);
    assert_eq!(marks(), 1, "the leader is older than the grace");
    // While the token is issued, the leader sees a pull secret without a Pod.
    let delay = Effect::Delay(Duration::from_secs(2));
    let slow = Fault::new(Endpoint::EntraToken, delay).of_client(env.team_a.client_id);
    env.azure.set_faults(&[slow]);
    let attempt = async {
        let cold = pull_secret_name(&namespace.create_pod(&pod("cold", "cold")).await);
        assert_eq!(marks(), 1, "a cold admission marks no pull secret");
        refuse_after_webhook(namespace).await;
        namespace.refused_pod(&pod("refused", "refused")).await;
        let mut left = namespace.list_pull_secrets().await;
        left.retain(|owner| owner.name_any() != cold);
        let [left] = &left[..] else {
            panic!("{left:?}");
        };
        let marked = eventually("the collection is announced", async || {
            let status = namespace.pull_secret(&left.name_any()).await.status;
            Some(status?.unused_since?.0)
        })
        .await;
        // The creation time has whole seconds.
        let age = marked.duration_since(left.creation_timestamp().unwrap().0);
        assert!(age >= SignedDuration::from_secs(GRACE), "{age:?} old");
        namespace.wait_until_secret_is_gone(&left.name_any()).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    assert_eq!(marks(), 2);
    env.webhook
        .wait_until_counted("pull_secrets_collected_total", 2)
        .await;
}

/// The Pods of a namespace are larger than the memory of a replica.
#[testkit::test]
async fn collection_among_very_many_pods_uses_little_memory() {
    const PODS: usize = 1_500;
    let flags = ["--unused-grace=4s", "--unused-notice=2s", "--log-level=info"];
    let env = TestEnv::leading(&flags, |_| ()).await;
    let namespace = &env.team_a.namespace;
    let big = json!({"note": "x".repeat(10_000)});
    let created = stream::iter(0..PODS).map(async |n| {
        let metadata = json!({"name": format!("big-{n}"), "annotations": big});
        let spec = json!({"containers": [{"name": "app", "image": "example.com/app"}]});
        let pod = from(json!({"metadata": metadata, "spec": spec}));
        namespace.create_pod(&pod).await;
    });
    created.buffer_unordered(16).collect::<Vec<_>>().await;
    let attempt = async {
        for n in 0..20 {
            let generator = format!("unused-{n}");
            namespace.apply_generator(&generator, json!({})).await;
            namespace.create_pod(&pod(&generator, &generator)).await;
        }
        let injected = ListParams::default().labels("acr-pull.dev/injected=true");
        let params = DeleteParams::default().grace_period(0);
        let pods = namespace.pods();
        pods.delete_collection(&params, &injected).await.unwrap();
        env.webhook
            .wait_until_counted("pull_secrets_collected_total", 20)
            .await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}

/// Waits until the metric of a replica is near the expiration of a token.
async fn wait_for_first_expiration(webhook: &Webhook, expires: f64) {
    eventually("the first expiration is measured", async || {
        let first = webhook.metric_f64(FIRST_EXPIRATION).await;
        (first.is_finite() && (first - expires).abs() <= 24.0).then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_leader_without_pods_renews_and_without_pull_secrets_resigns() {
    let flags = ["--unused-grace=3s", "--unused-notice=1s"];
    let env = TestEnv::leading_through_proxy(&flags, token_lifetime(12)).await;
    let namespace = &env.team_a.namespace;
    env.webhook.wait_until_leader().await;
    let attempt = async {
        env.proxy().refuse("/api/v1/pods", StatusCode::FORBIDDEN, ALWAYS);
        env.webhook.wait_until_logged("the watch of Pods fails").await;
        let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
        namespace.wait_for_renewals(&name, 3).await;
        let status = namespace.status(&name).await;
        assert!(status.is_ready() && status.unused_since.is_none(), "{status:?}");
        let expires = status.expiration_time.unwrap().0.as_second() as f64;
        wait_for_first_expiration(&env.webhook, expires).await;

        let next = env.replica().await;
        let path = "/apis/acr-pull.dev/v1alpha1/acrpullsecrets";
        env.proxy().refuse(path, StatusCode::FORBIDDEN, ALWAYS);
        next.wait_until_leader().await;
        assert!(!env.webhook.is_leader().await);
        let first = env.webhook.metric_f64(FIRST_EXPIRATION).await;
        assert!(first.is_nan(), "a replica without pull secrets reports NaN");
        namespace.wait_for_renewals(&name, 2).await;
        next
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}
