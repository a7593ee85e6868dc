//! What drives the leader to work: Pods, Events and statuses that users write.

use super::bears;
use crate::{
    gate::Write,
    site::{ANNOTATION, REGISTRY, Site, eventually, from, pod, pull_secret_name, pull_secret_names, unnamed},
    webhook::Webhook,
};
use acr_pull_webhook::{
    generator::ServiceAccount,
    names::ObjectName,
    pull_secret::name,
    reference::{Kind, Reference},
};
use azure_emulator::{Effect, Endpoint, Fault};
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

async fn annotate(site: &Site, namespace: &str, pod: &str, annotations: Value) {
    let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
    site.pods(namespace)
        .patch(pod, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

pub async fn delete_pod(site: &Site, namespace: &str, pod: &str) {
    let at_once = DeleteParams::default().grace_period(0);
    site.pods(namespace).delete(pod, &at_once).await.unwrap();
}

async fn renewed(site: &Site, namespace: &str, name: &str) -> Timestamp {
    site.status(namespace, name).await.last_renewal_time.unwrap().0
}

/// Waits until this pull secret has been renewed so many times.
async fn renewals_pass(site: &Site, namespace: &str, name: &str, times: usize) {
    for _ in 0..times {
        let before = renewed(site, namespace, name).await;
        eventually("it is renewed", async || {
            (renewed(site, namespace, name).await > before).then_some(())
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

pub async fn post(site: &Site, namespace: &str, event: Value) {
    let events = Api::<Event>::namespaced(site.client.clone(), namespace);
    events.create(&PostParams::default(), &from(event)).await.unwrap();
}

/// The status that a kubelet writes of a Pod whose image it cannot pull.
async fn cannot_pull(site: &Site, namespace: &str, pod: &str) {
    let image = format!("{REGISTRY}/team-a/app:1");
    let container = json!({"name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}});
    let patch = Patch::Merge(json!({"status": {"containerStatuses": [container]}}));
    site.pods(namespace)
        .patch_status(pod, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until it is so long after the last renewal that a kubelet's clock cannot be at fault, and returns that time.
pub async fn after_renewal(site: &Site, namespace: &str, name: &str) -> Timestamp {
    let at = renewed(site, namespace, name).await + SignedDuration::from_secs(7);
    eventually("it is that late", async || (Timestamp::now() >= at).then_some(())).await;
    at
}

/// Attempts 9, 10 and 19: annotations with more names than there can be, and of Pods that pull by no such Secret.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_pods_claim_cost_the_leader_neither_memory_nor_tokens() {
    let site = Site::leading(&[], lives(12)).await;
    let (mallory, other) = (&site.a.namespace, &site.b.namespace);
    let clock = pull_secret_name(&site.create(other, &pod("clock", "contoso")).await);
    let long = |count: u32| {
        (0..count)
            .map(|n| format!("acr-pull-{n}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let attempt = async {
        site.create(
            mallory,
            &forged("many", json!({"acr-pull.dev/pull-secrets": long(2_000)})),
        )
        .await;
        for n in 0..20 {
            let annotations = json!({"acr-pull.dev/pull-secrets": long(500)});
            site.create(mallory, &forged(&format!("some-{n}"), annotations))
                .await;
        }
        // Of the very name that this Pod's generator and service account have; but it pulls by no such Secret.
        site.create(
            mallory,
            &forged("liar", json!({"acr-pull.dev/pull-secrets": named_for("app")})),
        )
        .await;
        annotate(&site, mallory, "liar", json!({ANNOTATION: "contoso"})).await;
        // What a kubelet can create in any namespace.
        let mirror = json!({"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": "x",
            "acr-pull.dev/pull-secrets": named_for("default"), ANNOTATION: "contoso"});
        let mut mirror = forged("mirror", mirror);
        mirror.spec.as_mut().unwrap().service_account_name = None;
        mirror.spec.as_mut().unwrap().node_name = Some("node".to_owned());
        site.create(mallory, &mirror).await;
        renewals_pass(&site, other, &clock, 3).await;
    };
    bears(&site, &[&site.webhook], attempt).await;
    let made = site
        .pull_secrets(mallory)
        .list(&ListParams::default())
        .await
        .unwrap();
    let made: Vec<_> = made.items.iter().map(ResourceExt::name_any).collect();
    assert!(made.is_empty(), "{made:?}");
    assert_eq!(site.calls_of(site.a.client_id, Endpoint::EntraToken), 0);
}

/// Attempt 18 and the rest of that kind: Events of another namespace, about foreign Secrets, of the time before the token, about
/// foreign registries, about Pods that run.
#[tokio::test(flavor = "multi_thread")]
async fn a_complaint_costs_a_token_only_where_the_pod_and_its_times_agree() {
    let site = Site::leading(&[], |_| ()).await;
    let (mallory, victim) = (&site.a.namespace, &site.b.namespace);
    let ours = pull_secret_name(&site.create(victim, &pod("app", "contoso")).await);
    cannot_pull(&site, victim, "app").await;
    let about = (victim.as_str(), "app");
    let calls = || site.calls_of(site.b.client_id, Endpoint::EntraToken);
    assert_eq!(calls(), 1);
    let at = after_renewal(&site, victim, &ours).await;
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
        post(&site, mallory, foreign.clone()).await;
        let before = renewed(&site, victim, &ours).await - SignedDuration::from_mins(30);
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
            post(&site, victim, complaint).await;
        }
        // The Events of one reason come in their order: these are the last.
        post(&site, victim, missing(about, &format!("regcred, {ours}"), at)).await;
        eventually("it is repaired", async || {
            (renewed(&site, victim, &ours).await + SignedDuration::from_secs(1) > at).then_some(())
        })
        .await;
        assert_eq!(calls(), 2, "one complaint was true");
        let at = after_renewal(&site, victim, &ours).await;
        post(&site, victim, failed(about, &refusal(), at)).await;
        eventually("it is repaired", async || (calls() > 2).then_some(())).await;
        assert_eq!(calls(), 3, "and then one more");
    };
    bears(&site, &[&site.webhook], attempt).await;
    assert_eq!(
        site.metric("renewals_total{outcome=\"Repaired\",reason=\"Ok\"}")
            .await,
        2
    );
}

/// Repairs do what they say: whatever the generator would have new Pods name, whatever the Namespace says now, and whatever
/// else the Pod asks for.
#[tokio::test(flavor = "multi_thread")]
async fn each_reference_is_repaired_by_itself_and_as_its_pods_name_it() {
    let site = Site::leading(&[], |_| ()).await;
    let namespace = &site.a.namespace;
    let client_id = [("azure.workload.identity/client-id", site.a.client_id)];
    site.service_account(namespace, "puller", &client_id).await;
    for generator in ["changing", "gone", "label"] {
        site.generator(namespace, generator, json!({})).await;
    }
    site.namespace_default(namespace, json!("label")).await;
    let bare: Pod = from(json!({"metadata": {"name": "bare"},
        "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": format!("{REGISTRY}/team-a/app:1")}]}}));
    let bare = eventually("the Namespace has a default", async || {
        let made = site.create(namespace, &bare).await;
        if pull_secret_names(&made).is_empty() {
            delete_pod(&site, namespace, "bare").await;
            return None;
        }
        Some(made)
    })
    .await;
    let label = pull_secret_name(&bare);
    let changing = pull_secret_name(&site.create(namespace, &pod("changing", "changing")).await);
    let both = pull_secret_names(&site.create(namespace, &pod("both", "gone, contoso")).await);
    let [gone, contoso] = &both[..] else {
        panic!("{both:?}");
    };

    site.namespace_default(namespace, Value::Null).await;
    let to_puller = json!({"auth": {"workloadIdentity": {"serviceAccountRef": {"name": "puller"}}}});
    site.generator(namespace, "changing", to_puller).await;
    Api::<acr_pull_webhook::generator::ACRAccessToken>::namespaced(site.client.clone(), namespace)
        .delete("gone", &DeleteParams::default())
        .await
        .unwrap();
    let attempt = async {
        for (pod, name, names) in [
            ("bare", &label, label.clone()),
            ("changing", &changing, changing.clone()),
            ("both", contoso, format!("{gone}, {contoso}")),
        ] {
            site.delete_secret(namespace, name).await;
            let at = after_renewal(&site, namespace, name).await;
            post(&site, namespace, missing((namespace, pod), &names, at)).await;
            eventually(pod, async || site.secrets(namespace).get_opt(name).await.unwrap()).await;
        }
        // The same of the whole pull secret, which no Event tells of.
        let uid = site.pull_secrets(namespace).get(contoso).await.unwrap().uid();
        site.pull_secrets(namespace)
            .delete(contoso, &DeleteParams::default())
            .await
            .unwrap();
        eventually("it is restored", async || {
            let found = site.pull_secrets(namespace).get_opt(contoso).await.unwrap()?;
            (found.uid() != uid && found.status.as_ref()?.is_ready()).then_some(())
        })
        .await;
    };
    bears(&site, &[&site.webhook], attempt).await;
}

/// What is gone under a live Pod is restored, also where the first try fails and nothing happens any more that would ask for
/// another.
#[tokio::test(flavor = "multi_thread")]
async fn a_restoration_that_failed_is_tried_again() {
    let site = Site::leading_through_a_gate(&[], |_| ()).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
    let uid = site.pull_secrets(namespace).get(&name).await.unwrap().uid();
    let path = format!("/api/v1/namespaces/{namespace}/pods/app");
    let attempt = async {
        site.gate().refuse(&path, StatusCode::SERVICE_UNAVAILABLE, 1);
        site.pull_secrets(namespace)
            .delete(&name, &DeleteParams::default())
            .await
            .unwrap();
        eventually("the first try fails", async || {
            site.gate().has_refused().then_some(())
        })
        .await;
        eventually("it is restored", async || {
            let found = site.pull_secrets(namespace).get_opt(&name).await.unwrap()?;
            (found.uid() != uid && found.status.as_ref()?.is_ready()).then_some(())
        })
        .await;
    };
    bears(&site, &[&site.webhook], attempt).await;
}

/// Attempt 17: times in a status that no clock has shown.
#[tokio::test(flavor = "multi_thread")]
async fn no_time_in_a_status_stops_the_leader() {
    let site = Site::leading(&[], lives(12)).await;
    let (mallory, other) = (&site.a.namespace, &site.b.namespace);
    let clock = pull_secret_name(&site.create(other, &pod("clock", "contoso")).await);
    let name = pull_secret_name(&site.create(mallory, &pod("app", "contoso")).await);
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
            site.pull_secrets(mallory)
                .patch_status(&name, &PatchParams::default(), &patch)
                .await
                .unwrap();
            renewals_pass(&site, other, &clock, 1).await;
        }
    };
    bears(&site, &[&site.webhook], attempt).await;
    assert_eq!(site.metric("upkeep_panics_total").await, 0);
}

/// Attempt 20, and a cold admission by a leader that is older than the grace: a pull secret is as old as it is, not as the leader.
#[tokio::test(flavor = "multi_thread")]
async fn the_grace_of_a_pull_secret_begins_when_it_is_first_seen() {
    const GRACE: i64 = 8;
    let site = Site::leading_through_a_gate(&["--unused-grace=8s", "--unused-notice=2s"], |_| ()).await;
    let namespace = &site.a.namespace;
    for generator in ["early", "cold", "refused"] {
        site.generator(namespace, generator, json!({})).await;
    }
    let early = pull_secret_name(&site.create(namespace, &pod("early", "early")).await);
    delete_pod(&site, namespace, "early").await;
    site.secret_is_collected(namespace, &early).await;
    let began = site.gate().writes(Write::Mark);
    assert_eq!(began, 1, "the leader is older than the grace, and has marked one");
    // The token takes a moment in which the leader sees a pull secret without a Pod.
    let delay = Effect::Delay(Duration::from_secs(2));
    let slow = Fault::new(Endpoint::EntraToken, delay).of_client(site.a.client_id);
    site.emulator.set_faults(&[slow]);
    let attempt = async {
        let cold = pull_secret_name(&site.create(namespace, &pod("cold", "cold")).await);
        assert_eq!(
            site.gate().writes(Write::Mark),
            began,
            "a cold admission marks nothing"
        );
        // What comes after the webhook refuses the Pod.
        let restricted =
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        Api::<Namespace>::all(site.client.clone())
            .patch(namespace, &PatchParams::default(), &Patch::Merge(restricted))
            .await
            .unwrap();
        let refused = eventually("Pods are refused after the webhook", async || {
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            site.pods(namespace)
                .create(&dry_run, &unnamed("contoso"))
                .await
                .err()
        })
        .await;
        assert!(refused.to_string().contains("violates PodSecurity"), "{refused}");
        site.refused(namespace, &pod("refused", "refused")).await;
        let all = site
            .pull_secrets(namespace)
            .list(&ListParams::default())
            .await
            .unwrap();
        let mut all = all.items.into_iter().filter(|owner| owner.name_any() != cold);
        let (left, none) = (all.next().unwrap(), all.next());
        assert!(none.is_none());
        let marked = eventually("its end is announced", async || {
            let owner = site.pull_secrets(namespace).get(&left.name_any()).await.unwrap();
            Some(owner.status?.unused_since?.0)
        })
        .await;
        // Of the two times one is of whole seconds.
        let age = marked.duration_since(left.creation_timestamp().unwrap().0);
        assert!(age >= SignedDuration::from_secs(GRACE), "{age:?} old");
        site.secret_is_collected(namespace, &left.name_any()).await;
    };
    bears(&site, &[&site.webhook], attempt).await;
    assert_eq!(site.gate().writes(Write::Mark), began + 1);
    assert_eq!(site.metric("pull_secrets_collected_total").await, 2);
}

/// Attempt 27: more Pods in a namespace than the memory of a replica holds, and pull secrets there that nobody uses.
#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_of_a_namespace_with_very_many_pods_are_collected_in_little_memory() {
    const PODS: usize = 1_500;
    let site = Site::leading(
        &["--unused-grace=4s", "--unused-notice=2s", "--log-level=info"],
        |_| (),
    )
    .await;
    let namespace = &site.a.namespace;
    let big = json!({"note": "x".repeat(10_000)});
    let pods = site.pods(namespace);
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
            site.generator(namespace, &generator, json!({})).await;
            site.create(namespace, &pod(&generator, &generator)).await;
        }
        let ours = ListParams::default().labels("acr-pull.dev/injected=true");
        let at_once = DeleteParams::default().grace_period(0);
        pods.delete_collection(&at_once, &ours).await.unwrap();
        eventually("all are collected", async || {
            (site.metric("pull_secrets_collected_total").await == 20).then_some(())
        })
        .await;
    };
    bears(&site, &[&site.webhook], attempt).await;
}

/// A leader that is not told of Pods renews all the same, and one that is not told of pull secrets gives way.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_sees_no_pods_renews_and_one_that_sees_no_pull_secrets_gives_way() {
    let site = Site::leading_through_a_gate(&["--unused-grace=3s", "--unused-notice=1s"], lives(12)).await;
    let namespace = &site.a.namespace;
    eventually("it leads", async || {
        (site.metric("leader").await == 1).then_some(())
    })
    .await;
    let attempt = async {
        site.gate().refuse("/api/v1/pods", StatusCode::FORBIDDEN, ALWAYS);
        eventually("the watch of Pods fails", async || {
            let log = site.webhook.log();
            log.iter()
                .any(|line| line.contains("the watch of Pods fails"))
                .then_some(())
        })
        .await;
        let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);
        renewals_pass(&site, namespace, &name, 3).await;
        let status = site.status(namespace, &name).await;
        assert!(status.is_ready() && status.unused_since.is_none(), "{status:?}");
        let ends = status.expiration_time.unwrap().0.as_second() as f64;
        eventually("it is measured", async || {
            let first = first_expiration(&site.webhook).await;
            (first.is_finite() && (first - ends).abs() <= 24.0).then_some(())
        })
        .await;

        let next = site.replica().await;
        let path = "/apis/acr-pull.dev/v1alpha1/acrpullsecrets";
        site.gate().refuse(path, StatusCode::FORBIDDEN, ALWAYS);
        eventually("another replica leads", async || {
            let (_, metrics) = next.admin_get("/metrics").await;
            metrics.contains("\nacr_pull_webhook_leader 1\n").then_some(())
        })
        .await;
        assert_eq!(site.metric("leader").await, 0);
        assert!(
            first_expiration(&site.webhook).await.is_nan(),
            "it does not know any more"
        );
        renewals_pass(&site, namespace, &name, 2).await;
        next
    };
    bears(&site, &[&site.webhook], attempt).await;
}
