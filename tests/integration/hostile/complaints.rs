//! Complaints: Events about pull secrets, written by kubelets or by users.

use super::unaffected_by;
use azure_emulator::Endpoint;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::REGISTRY,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{CLIENT_ID, from, pod, pod_json, pull_secret_name, pull_secret_names},
};

/// An Event of type `Warning` about a Pod of this namespace.
fn event(namespace: &TestNamespace, pod: &str, reason: &str, message: &str, at: Timestamp) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "stranger-"}, "type": "Warning",
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": pod},
        "reason": reason, "message": message, "firstTimestamp": at, "lastTimestamp": at, "count": 1,
    })
}

/// A complaint that these Secrets are missing.
pub fn missing(namespace: &TestNamespace, pod: &str, names: &str, at: Timestamp) -> Value {
    let message = format!(
        "Unable to retrieve some image pull secrets ({names}); attempting to pull the image may not succeed."
    );
    event(namespace, pod, "FailedToRetrieveImagePullSecret", &message, at)
}

/// A complaint that the registry refused the token.
fn refused(namespace: &TestNamespace, pod: &str, at: Timestamp) -> Value {
    let message = format!(
        "Failed to pull image \"{REGISTRY}/team-a/app:1\": failed to authorize: failed to fetch oauth token: \
         unexpected status from GET request to https://{REGISTRY}/oauth2/token: 401 Unauthorized"
    );
    event(namespace, pod, "Failed", &message, at)
}

/// Creates an Event in a namespace.
pub async fn post(namespace: &TestNamespace, event: Value) {
    let events = namespace.api::<Event>();
    events.create(&PostParams::default(), &from(event)).await.unwrap();
}

/// Writes the status of a Pod whose image a kubelet cannot pull.
async fn set_pull_failed(namespace: &TestNamespace, pod: &str) {
    let image = format!("{REGISTRY}/team-a/app:1");
    let container = json!({"name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}});
    let patch = Patch::Merge(json!({"status": {"containerStatuses": [container]}}));
    let params = PatchParams::default();
    namespace.pods().patch_status(pod, &params, &patch).await.unwrap();
}

/// Waits until the last renewal is so long ago that the clock of a kubelet does not matter; returns the time.
pub async fn after_renewal(namespace: &TestNamespace, name: &str) -> Timestamp {
    let at = namespace.renewed_at(name).await + SignedDuration::from_secs(7);
    eventually("the tolerance of clocks has passed", async || {
        (Timestamp::now() >= at).then_some(())
    })
    .await;
    at
}

/// The complaint of another namespace about this Pod, in the form of a newer kubelet.
fn foreign(namespace: &TestNamespace, name: &str, at: Timestamp) -> Value {
    let mut foreign = missing(namespace, "app", name, at);
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
    foreign
}

/// Complaints that do not concern the current token of this pull secret.
fn unfounded(namespace: &TestNamespace, name: &str, at: Timestamp, renewed: Timestamp) -> [Value; 6] {
    let before = renewed - SignedDuration::from_mins(30);
    let absurd = Timestamp::MAX - SignedDuration::from_hours(48);
    let failed = |message: &str| event(namespace, "app", "Failed", message, at);
    let not_found = format!("Failed to pull image \"{REGISTRY}/team-b/app@sha256:401403\": not found");
    [
        missing(namespace, "app", "regcred", at),
        missing(namespace, "app", &format!("regcred, {name}"), before),
        missing(namespace, "app", name, absurd),
        failed(r#"Failed to pull image "docker.io/x/y:1": pull access denied"#),
        failed(&not_found),
        refused(namespace, "app", before),
    ]
}

/// Events of another namespace, about other Secrets, from before the last renewal, about other registries,
/// and about running Pods.
#[testkit::test]
async fn only_a_confirmed_complaint_about_the_current_token_costs_a_token() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let namespace = &env.team_b.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    set_pull_failed(namespace, "app").await;
    let calls = || env.azure.calls_of(env.team_b.client_id, Endpoint::EntraToken);
    assert_eq!(calls(), 1);
    let at = after_renewal(namespace, &name).await;
    let attempt = async {
        post(&env.team_a.namespace, foreign(namespace, &name, at)).await;
        let renewed = namespace.renewed_at(&name).await;
        for complaint in unfounded(namespace, &name, at, renewed) {
            post(namespace, complaint).await;
        }
        // Events with one reason are handled in their order: this is the last one.
        post(
            namespace,
            missing(namespace, "app", &format!("regcred, {name}"), at),
        )
        .await;
        eventually("the pull secret is repaired", async || {
            (namespace.renewed_at(&name).await + SignedDuration::from_secs(1) > at).then_some(())
        })
        .await;
        assert_eq!(calls(), 2, "one complaint was confirmed");
        let at = after_renewal(namespace, &name).await;
        post(namespace, refused(namespace, "app", at)).await;
        eventually("the pull secret is repaired again", async || {
            (calls() > 2).then_some(())
        })
        .await;
        assert_eq!(calls(), 3, "one more complaint was confirmed");
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    let repaired = "renewals_total{outcome=\"Repaired\",reason=\"Ok\"}";
    env.webhook.wait_until_counted(repaired, 2).await;
}

/// Creates a Pod without an annotation as soon as the label of its namespace applies; returns its pull secret.
async fn create_unannotated(namespace: &TestNamespace) -> String {
    let unannotated: Pod = from(pod_json(
        "unannotated",
        &format!("{REGISTRY}/team-a/app:1"),
        json!({}),
    ));
    let created = eventually("the namespace has a default generator", async || {
        let created = namespace.create_pod(&unannotated).await;
        if pull_secret_names(&created).is_empty() {
            namespace.delete_pod("unannotated").await;
            return None;
        }
        Some(created)
    })
    .await;
    pull_secret_name(&created)
}

/// A repair does not depend on the current generator, on the current label of the namespace, or on other references of
/// the Pod.
#[testkit::test]
async fn each_reference_of_a_pod_is_repaired_independently() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_service_account("puller", &[(CLIENT_ID, env.team_a.client_id)])
        .await;
    for generator in ["changing", "deleted", "label"] {
        namespace.apply_generator(generator, json!({})).await;
    }
    namespace.set_default_generator(json!("label")).await;
    let label = create_unannotated(namespace).await;
    let changing = pull_secret_name(&namespace.create_pod(&pod("changing", "changing")).await);
    let both = pull_secret_names(&namespace.create_pod(&pod("both", "deleted, contoso")).await);
    let [deleted, contoso] = &both[..] else {
        panic!("{both:?}");
    };

    namespace.set_default_generator(Value::Null).await;
    let reference = json!({"auth": {"workloadIdentity": {"serviceAccountRef": {"name": "puller"}}}});
    namespace.apply_generator("changing", reference).await;
    namespace
        .api::<acr_pull_webhook::generator::ACRAccessToken>()
        .delete("deleted", &DeleteParams::default())
        .await
        .unwrap();
    let attempt = async {
        for (pod, name, names) in [
            ("unannotated", &label, label.clone()),
            ("changing", &changing, changing.clone()),
            ("both", contoso, format!("{deleted}, {contoso}")),
        ] {
            namespace.delete_secret(name).await;
            let at = after_renewal(namespace, name).await;
            post(namespace, missing(namespace, pod, &names, at)).await;
            eventually(&format!("the Secret of Pod {pod} is repaired"), async || {
                namespace.secrets().get_opt(name).await.unwrap()
            })
            .await;
        }
        // A deleted ACRPullSecret is restored without an Event.
        let uid = namespace.pull_secret(contoso).await.uid();
        namespace.delete_pull_secret(contoso).await;
        namespace.wait_until_recreated(contoso, &uid).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
}
