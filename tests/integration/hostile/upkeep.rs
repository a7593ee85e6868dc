//! What drives the leader to work: Pods, Events and statuses that users write.

use super::bears;
use acr_pull_webhook::{
    generator::ServiceAccount,
    names::ObjectName,
    pull_secret::name,
    reference::{Kind, Reference},
};
use azure_emulator::{Endpoint, Fault};
use futures::{StreamExt, stream};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::{
    api_proxy::Write,
    azure::REGISTRY,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{ANNOTATION, from, pod, pull_secret_name, pull_secret_names, unnamed_pod},
    webhook::Webhook,
};

/// For ever, as far as a test lasts.
const ALWAYS: usize = usize::MAX;

fn lives(seconds: u32) -> impl FnOnce(&mut Value) {
    move |world| world["tokens"] = json!({"acrRefreshLifetime": format!("{seconds}s")})
}

/// What a Pod of this service account names for the generator `contoso`.
fn named_for(service_account: &str) -> String {
    let generator = Reference {
        kind: Kind::AccessToken,
        name: ObjectName::new("contoso").unwrap(),
    };
    let account = ServiceAccount::OfPod(ObjectName::new(service_account).unwrap());
    name(&generator, &account).to_string()
}

/// A Pod that the webhook is not asked about, of these annotations and as one that it patched.
fn forged(pod: &str, annotations: Value) -> Pod {
    from(json!({
        "metadata": {"name": pod, "labels": {"acr-pull.dev/injected": "true"}, "annotations": annotations},
        "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": "example.com/app"}]},
    }))
}

async fn annotate(env: &TestEnv, namespace: &TestNamespace, pod: &str, annotations: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    namespace
        .pods()
        .patch(pod, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

pub async fn delete_pod(env: &TestEnv, namespace: &TestNamespace, pod: &str) {
    let at_once = DeleteParams::default().grace_period(0);
    namespace.pods().delete(pod, &at_once).await.unwrap();
}

async fn renewed(env: &TestEnv, namespace: &TestNamespace, name: &str) -> Timestamp {
    namespace.renewed_at(name).await
}

/// Waits until this pull secret has been renewed so many times.
async fn renewals_pass(env: &TestEnv, namespace: &TestNamespace, name: &str, times: usize) {
    for _ in 0..times {
        let before = renewed(env, namespace, name).await;
        eventually("it is renewed", async || {
            (renewed(env, namespace, name).await > before).then_some(())
        })
        .await;
    }
}

/// When the first token in use ends, as this replica measures it.
async fn first_expiration(replica: &Webhook) -> f64 {
    let (_, metrics) = replica.admin_get("/metrics").await;
    let name = "acr_pull_webhook_pull_secrets_first_expiration_timestamp_seconds ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    value.parse().unwrap()
}

/// An Event of `type: Warning` in this namespace about this Pod.
fn event(about: (&str, &str), reason: &str, message: &str, at: Timestamp) -> Value {
    let (namespace, pod) = about;
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "stranger-"}, "type": "Warning",
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": pod},
        "reason": reason, "message": message, "firstTimestamp": at, "lastTimestamp": at, "count": 1,
    })
}

pub fn missing(about: (&str, &str), names: &str, at: Timestamp) -> Value {
    let message = format!(
        "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
    );
    event(about, "FailedToRetrieveImagePullSecret", &message, at)
}

fn failed(about: (&str, &str), message: &str, at: Timestamp) -> Value {
    event(about, "Failed", message, at)
}

fn refusal() -> String {
    format!(
        "Failed to pull image \"{REGISTRY}/team-a/app:1\": failed to authorize: failed to fetch oauth token: \
         unexpected status from GET request to https://{REGISTRY}/oauth2/token: 401 Unauthorized"
    )
}

pub async fn post(env: &TestEnv, namespace: &TestNamespace, event: Value) {
    let events = namespace.api::<Event>();
    events.create(&PostParams::default(), &from(event)).await.unwrap();
}

/// The status that a kubelet writes of a Pod whose image it cannot pull.
async fn cannot_pull(env: &TestEnv, namespace: &TestNamespace, pod: &str) {
    let image = format!("{REGISTRY}/team-a/app:1");
    let container = json!({"name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}});
    let patch = Patch::Merge(json!({"status": {"containerStatuses": [container]}}));
    namespace
        .pods()
        .patch_status(pod, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until it is so long after the last renewal that a kubelet's clock cannot be at fault, and returns that time.
pub async fn after_renewal(env: &TestEnv, namespace: &TestNamespace, name: &str) -> Timestamp {
    let at = renewed(env, namespace, name).await + SignedDuration::from_secs(7);
    eventually("it is that late", async || (Timestamp::now() >= at).then_some(())).await;
    at
}

/// Attempts 9, 10 and 19: annotations with more names than there can be, and of Pods that pull by no such Secret.
#[testkit::test]
async fn names_that_pods_claim_cost_the_leader_neither_memory_nor_tokens() {
    let env = TestEnv::leading(&[], lives(12)).await;
    let (mallory, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let clock = pull_secret_name(&other.create_pod(&pod("clock", "contoso")).await);
    let long = |count: u32| {
        (0..count)
            .map(|n| format!("acr-pull-{n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let attempt = async {
        mallory
            .create_pod(&forged("many", json!({"acr-pull.dev/pull-secrets": long(2_000)})))
            .await;
        for n in 0..20 {
            let annotations = json!({"acr-pull.dev/pull-secrets": long(500)});
            mallory
                .create_pod(&forged(&format!("some-{n}"), annotations))
                .await;
        }
        // Of the very name that this Pod's generator and service account have; but it pulls by no such Secret.
        mallory
            .create_pod(&forged(
                "liar",
                json!({"acr-pull.dev/pull-secrets": named_for("app")}),
            ))
            .await;
        annotate(&env, mallory, "liar", json!({ANNOTATION: "contoso"})).await;
        // What a kubelet can create in any namespace.
        let mirror = json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": "x",
            "acr-pull.dev/pull-secrets": named_for("default"), ANNOTATION: "contoso"});
        let mut mirror = forged("mirror", mirror);
        mirror.spec.as_mut().unwrap().service_account_name = None;
        mirror.spec.as_mut().unwrap().node_name = Some("node".to_owned());
        mallory.create_pod(&mirror).await;
        renewals_pass(&env, other, &clock, 3).await;
    };
    bears(&env, &[&env.webhook], attempt).await;
    let made = mallory.pull_secrets().list(&ListParams::default()).await.unwrap();
    let made: Vec<_> = made.items.iter().map(ResourceExt::name_any).collect();
    assert!(made.is_empty(), "{made:?}");
    assert_eq!(env.azure.calls_of(env.team_a.client_id, Endpoint::EntraToken), 0);
}

/// Attempt 18 and the rest of that kind: Events of another namespace, about foreign Secrets, of the time before the token, about
/// foreign registries, about Pods that run.
#[testkit::test]
async fn a_complaint_costs_a_token_only_where_the_pod_and_its_times_agree() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let (mallory, victim) = (&env.team_a.namespace, &env.team_b.namespace);
    let ours = pull_secret_name(&victim.create_pod(&pod("app", "contoso")).await);
    cannot_pull(&env, victim, "app").await;
    let about = (victim.name(), "app");
    let calls = || env.azure.calls_of(env.team_b.client_id, Endpoint::EntraToken);
    assert_eq!(calls(), 1);
    let at = after_renewal(&env, victim, &ours).await;
    let attempt = async {
        let mut foreign = missing(about, &ours, at);
        for field in ["firstTimestamp", "lastTimestamp", "count"] {
            foreign[field] = Value::Null;
        }
        for (field, value) in [
            ("reportingComponent", "kubelet"),
            ("reportingInstance", "node"),
            ("action", "Pulling"),
        ] {
            foreign[field] = value.into();
        }
        foreign["eventTime"] = format!("{at:.6}").into();
        post(&env, mallory, foreign.clone()).await;
        let before = renewed(&env, victim, &ours).await - SignedDuration::from_mins(30);
        let absurd = Timestamp::MAX - SignedDuration::from_hours(48);
        for complaint in [
            missing(about, "regcred", at),
            missing(about, &format!("regcred, {ours}"), before),
            missing(about, &ours, absurd),
            failed(
                about,
                r#"Failed to pull image "docker.io/x/y:1": pull access denied"#,
                at,
            ),
            failed(
                about,
                &format!("Failed to pull image \"{REGISTRY}/team-b/app@sha256:401403\": not found"),
                at,
            ),
            failed(about, &refusal(), before),
        ] {
            post(&env, victim, complaint).await;
        }
        // The Events of one reason come in their order: these are the last.
        post(&env, victim, missing(about, &format!("regcred, {ours}"), at)).await;
        eventually("it is repaired", async || {
            (renewed(&env, victim, &ours).await + SignedDuration::from_secs(1) > at).then_some(())
        })
        .await;
        assert_eq!(calls(), 2, "one complaint was true");
        let at = after_renewal(&env, victim, &ours).await;
        post(&env, victim, failed(about, &refusal(), at)).await;
        eventually("it is repaired", async || (calls() > 2).then_some(())).await;
        assert_eq!(calls(), 3, "and then one more");
    };
    bears(&env, &[&env.webhook], attempt).await;
    assert_eq!(
        env.webhook
            .metric("renewals_total{outcome=\"Repaired\",reason=\"Ok\"}")
            .await,
        2
    );
}

/// Repairs do what they say: whatever the generator would have new Pods name, whatever the Namespace says now, and whatever
/// else the Pod asks for.
#[testkit::test]
async fn each_reference_is_repaired_by_itself_and_as_its_pods_name_it() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let client_id = [("azure.workload.identity/client-id", env.team_a.client_id)];
    namespace.apply_service_account("puller", &client_id).await;
    for generator in ["changing", "gone", "label"] {
        namespace.apply_generator(generator, json!({})).await;
    }
    namespace.set_default_generator(json!("label")).await;
    let bare: Pod = from(json!({"metadata": {"name": "bare"},
        "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": format!("{REGISTRY}/team-a/app:1")}]}}));
    let bare = eventually("the Namespace has a default", async || {
        let made = namespace.create_pod(&bare).await;
        if pull_secret_names(&made).is_empty() {
            delete_pod(&env, namespace, "bare").await;
            return None;
        }
        Some(made)
    })
    .await;
    let label = pull_secret_name(&bare);
    let changing = pull_secret_name(&namespace.create_pod(&pod("changing", "changing")).await);
    let both = pull_secret_names(&namespace.create_pod(&pod("both", "gone, contoso")).await);
    let [gone, contoso] = &both[..] else {
        panic!("{both:?}");
    };

    namespace.set_default_generator(Value::Null).await;
    let to_puller = json!({"auth": {"workloadIdentity": {"serviceAccountRef": {"name": "puller"}}}});
    namespace.apply_generator("changing", to_puller).await;
    namespace
        .api::<acr_pull_webhook::generator::ACRAccessToken>()
        .delete("gone", &DeleteParams::default())
        .await
        .unwrap();
    let attempt = async {
        for (pod, name, names) in [
            ("bare", &label, label.clone()),
            ("changing", &changing, changing.clone()),
            ("both", contoso, format!("{gone}, {contoso}")),
        ] {
            namespace.delete_secret(name).await;
            let at = after_renewal(&env, namespace, name).await;
            post(&env, namespace, missing((namespace.name(), pod), &names, at)).await;
            eventually(pod, async || namespace.secrets().get_opt(name).await.unwrap()).await;
        }
        // The same of the whole pull secret, which no Event tells of.
        let uid = namespace.pull_secret(contoso).await.uid();
        namespace.delete_pull_secret(contoso).await;
        eventually("it is restored", async || {
            let found = namespace.pull_secrets().get_opt(contoso).await.unwrap()?;
            (found.uid() != uid && found.status.as_ref()?.is_ready()).then_some(())
        })
        .await;
    };
    bears(&env, &[&env.webhook], attempt).await;
}

/// What is gone under a live Pod is restored, also where the first try fails and nothing happens any more that would ask for
/// another.
#[testkit::test]
async fn a_restoration_that_failed_is_tried_again() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    let uid = namespace.pull_secret(&name).await.uid();
    let path = format!("/api/v1/namespaces/{namespace}/pods/app");
    let attempt = async {
        env.proxy().refuse(&path, StatusCode::SERVICE_UNAVAILABLE, 1);
        namespace.delete_pull_secret(&name).await;
        env.proxy().wait_until_refused().await;
        eventually("it is restored", async || {
            let found = namespace.pull_secrets().get_opt(&name).await.unwrap()?;
            (found.uid() != uid && found.status.as_ref()?.is_ready()).then_some(())
        })
        .await;
    };
    bears(&env, &[&env.webhook], attempt).await;
}

/// Attempt 17: times in a status that no clock has shown.
#[testkit::test]
async fn no_time_in_a_status_stops_the_leader() {
    let env = TestEnv::leading(&[], lives(12)).await;
    let (mallory, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let clock = pull_secret_name(&other.create_pod(&pod("clock", "contoso")).await);
    let name = pull_secret_name(&mallory.create_pod(&pod("app", "contoso")).await);
    let attempt = async {
        for (told, expires, renewed) in [
            ("9999-12-30T22:00:00Z", Value::Null, Value::Null),
            (
                "0001-01-01T00:00:00Z",
                json!("9999-12-30T22:00:00Z"),
                json!("0001-01-01T00:00:00Z"),
            ),
            (
                "9999-12-30T22:00:00Z",
                json!("0001-01-01T00:00:00Z"),
                json!("9999-12-30T22:00:00Z"),
            ),
        ] {
            let status = json!({"expirationTime": expires, "lastRenewalTime": renewed, "conditions": [
                {"type": "Ready", "status": "False", "reason": "X", "message": "", "lastTransitionTime": told}]});
            let patch = Patch::Merge(json!({"status": status}));
            mallory
                .pull_secrets()
                .patch_status(&name, &PatchParams::default(), &patch)
                .await
                .unwrap();
            renewals_pass(&env, other, &clock, 1).await;
        }
    };
    bears(&env, &[&env.webhook], attempt).await;
    assert_eq!(env.webhook.metric("upkeep_panics_total").await, 0);
}

/// Attempt 20, and a cold admission by a leader that is older than the grace: a pull secret is as old as it is, not as the leader.
#[testkit::test]
async fn the_grace_of_a_pull_secret_begins_when_it_is_first_seen() {
    const GRACE: i64 = 8;
    let env = TestEnv::leading_through_proxy(&["--unused-grace=8s", "--unused-notice=2s"], |_| ()).await;
    let namespace = &env.team_a.namespace;
    for generator in ["early", "cold", "refused"] {
        namespace.apply_generator(generator, json!({})).await;
    }
    let early = pull_secret_name(&namespace.create_pod(&pod("early", "early")).await);
    delete_pod(&env, namespace, "early").await;
    namespace.wait_until_secret_is_gone(&early).await;
    let began = env.proxy().writes(Write::UnusedSince);
    assert_eq!(began, 1, "the leader is older than the grace, and has marked one");
    // The token takes a moment in which the leader sees a pull secret without a Pod.
    let mut slow = Fault::on(Endpoint::EntraToken);
    slow.delay = Some(Duration::from_secs(2));
    slow.client_id = Some(env.team_a.client_id.to_owned());
    env.azure.set_faults(&[slow]);
    let attempt = async {
        let cold = pull_secret_name(&namespace.create_pod(&pod("cold", "cold")).await);
        assert_eq!(
            env.proxy().writes(Write::UnusedSince),
            began,
            "a cold admission marks nothing"
        );
        // What comes after the webhook refuses the Pod.
        namespace
            .set_label("pod-security.kubernetes.io/enforce", json!("restricted"))
            .await;
        let refused = eventually("Pods are refused after the webhook", async || {
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            namespace.dry_run_pod(&unnamed_pod("contoso")).await.err()
        })
        .await;
        assert!(refused.to_string().contains("violates PodSecurity"), "{refused}");
        namespace.refused_pod(&pod("refused", "refused")).await;
        let all = namespace
            .pull_secrets()
            .list(&ListParams::default())
            .await
            .unwrap();
        let mut all = all.items.into_iter().filter(|owner| owner.name_any() != cold);
        let (left, none) = (all.next().unwrap(), all.next());
        assert!(none.is_none());
        let marked = eventually("its end is announced", async || {
            let owner = namespace.pull_secret(&left.name_any()).await;
            Some(owner.status?.unused_since?.0)
        })
        .await;
        // Of the two times one is of whole seconds.
        let age = marked.duration_since(left.creation_timestamp().unwrap().0);
        assert!(age >= SignedDuration::from_secs(GRACE), "{age:?} old");
        namespace.wait_until_secret_is_gone(&left.name_any()).await;
    };
    bears(&env, &[&env.webhook], attempt).await;
    assert_eq!(env.proxy().writes(Write::UnusedSince), began + 1);
    assert_eq!(env.webhook.metric("pull_secrets_collected_total").await, 2);
}

/// Attempt 27: more Pods in a namespace than the memory of a replica holds, and pull secrets there that nobody uses.
#[testkit::test]
async fn pull_secrets_of_a_namespace_with_very_many_pods_are_collected_in_little_memory() {
    const PODS: usize = 1_500;
    let env = TestEnv::leading(
        &["--unused-grace=4s", "--unused-notice=2s", "--log-level=info"],
        |_| (),
    )
    .await;
    let namespace = &env.team_a.namespace;
    let big = json!({"note": "x".repeat(10_000)});
    let pods = namespace.pods();
    let filled = stream::iter(0..PODS).map(async |n| {
        let big = &big;
        let pod: Pod = from(
            json!({"metadata": {"name": format!("big-{n}"), "annotations": big},
            "spec": {"containers": [{"name": "app", "image": "example.com/app"}]}}),
        );
        pods.create(&PostParams::default(), &pod).await.unwrap();
    });
    filled.buffer_unordered(16).collect::<Vec<_>>().await;
    let attempt = async {
        for n in 0..20 {
            let generator = format!("unused-{n}");
            namespace.apply_generator(&generator, json!({})).await;
            namespace.create_pod(&pod(&generator, &generator)).await;
        }
        let ours = ListParams::default().labels("acr-pull.dev/injected=true");
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete_collection(&at_once, &ours).await.unwrap();
        eventually("all are collected", async || {
            (env.webhook.metric("pull_secrets_collected_total").await == 20).then_some(())
        })
        .await;
    };
    bears(&env, &[&env.webhook], attempt).await;
}

/// A leader that is not told of Pods renews all the same, and one that is not told of pull secrets gives way.
#[testkit::test]
async fn a_leader_that_sees_no_pods_renews_and_one_that_sees_no_pull_secrets_gives_way() {
    let env = TestEnv::leading_through_proxy(&["--unused-grace=3s", "--unused-notice=1s"], lives(12)).await;
    let namespace = &env.team_a.namespace;
    eventually("it leads", async || {
        (env.webhook.metric("leader").await == 1).then_some(())
    })
    .await;
    let attempt = async {
        env.proxy().refuse("/api/v1/pods", StatusCode::FORBIDDEN, ALWAYS);
        eventually("the watch of Pods fails", async || {
            let log = env.webhook.log();
            log.iter()
                .any(|line| line.contains("the watch of Pods fails"))
                .then_some(())
        })
        .await;
        let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
        renewals_pass(&env, namespace, &name, 3).await;
        let status = namespace.status(&name).await;
        assert!(status.is_ready() && status.unused_since.is_none(), "{status:?}");
        let ends = status.expiration_time.unwrap().0.as_second() as f64;
        eventually("it is measured", async || {
            let first = first_expiration(&env.webhook).await;
            (first.is_finite() && (first - ends).abs() <= 24.0).then_some(())
        })
        .await;

        let next = env.replica().await;
        let path = "/apis/acr-pull.dev/v1alpha1/acrpullsecrets";
        env.proxy().refuse(path, StatusCode::FORBIDDEN, ALWAYS);
        eventually("another replica leads", async || {
            let (_, metrics) = next.admin_get("/metrics").await;
            metrics.contains("\nacr_pull_webhook_leader 1\n").then_some(())
        })
        .await;
        assert_eq!(env.webhook.metric("leader").await, 0);
        assert!(
            first_expiration(&env.webhook).await.is_nan(),
            "it does not know any more"
        );
        renewals_pass(&env, namespace, &name, 2).await;
        next
    };
    bears(&env, &[&env.webhook], attempt).await;
}
