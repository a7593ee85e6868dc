//! The tests of docs/ordering.md: which webhooks an API server calls for a Pod, in which order, and what they find. The
//! registration is that of the chart, with the webhooks of this test in place of the program.

use super::{
    cluster::Cluster,
    turn,
    webhooks::{Call, Change, Webhooks},
};
use chart::helm::{render, set};
use k8s_openapi::api::core::v1::ServiceAccount;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex as SyncMutex, OnceLock};
use testkit::{
    control_plane::ControlPlane, eventually_within, namespace::TestNamespace, objects::ANNOTATION,
};
use tokio::sync::{Mutex, MutexGuard};

/// The registration of Kyverno. It sorts after the default name of this project's registration.
const POLICY_ENGINE: &str = "kyverno-resource-mutating-webhook-cfg";
/// The names of the entries of this project's registration.
const PODS: &str = "pods.acr-pull.dev";
const NAMESPACES: &str = "namespaces.acr-pull.dev";
const LAST: &str = "webhook.configurationName=zz-acr-pull-webhook";
const IMAGE: &str = "docker.io/app";
const REWRITTEN: &str = "contoso.azurecr.io/app";
/// How long a changed registration may take to reach the API server's cache.
const NOMINAL_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// A namespace, and webhooks that are called for its Pods. These tests run one after the other, because a registration
/// has no namespace.
struct Ordering {
    cluster: Cluster,
    webhooks: Webhooks,
    namespace: TestNamespace,
    annotations: Value,
    /// The name of this project's registration.
    ours: SyncMutex<String>,
    _turn: MutexGuard<'static, ()>,
}

impl Ordering {
    /// A new namespace with these labels.
    async fn in_namespace(name: &str, labels: Value) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        let turn = turn::wait_for(&TURN).await;
        // The registrations of these tests affect all Pods of their cluster, so other tests have another one.
        static CLUSTER: OnceLock<Arc<ControlPlane>> = OnceLock::new();
        let cluster = Cluster::of(CLUSTER.get_or_init(|| Arc::new(ControlPlane::start()))).await;
        // A failed test leaves its registrations.
        let kinds = "mutatingwebhookconfigurations,mutatingadmissionpolicies,mutatingadmissionpolicybindings";
        cluster.kubectl("delete --all").arg(kinds).succeed().await;
        let namespace = TestNamespace::create(&cluster.client, name, labels).await;
        let accounts = namespace.api::<ServiceAccount>();
        testkit::eventually("the service account `default` exists", async || {
            accounts.get_opt("default").await.unwrap()
        })
        .await;
        Self {
            cluster,
            webhooks: Webhooks::start().await,
            namespace,
            annotations: json!({}),
            ours: SyncMutex::default(),
            _turn: turn,
        }
    }

    /// Pods of the test have the annotation.
    fn with_annotation(mut self, reference: &str) -> Self {
        self.annotations = json!({ANNOTATION: reference});
        self
    }

    /// Registers a webhook of another owner.
    async fn register(&self, name: &str, change: Change) {
        let client = self.webhooks.client_config(name, change);
        let registration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "other.example.com",
                "admissionReviewVersions": ["v1"],
                "clientConfig": client,
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
                "reinvocationPolicy": "Never",
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
                "sideEffects": "None",
            }],
        });
        self.cluster.send("apply", registration).await;
    }

    /// Registers the webhook of this project as the chart with these values does.
    async fn register_ours(&self, change: Change, values: &[&str]) {
        let mut flags = set(values.iter().copied());
        flags.extend(["--show-only", "templates/webhook.yaml"].map(str::to_owned));
        let rendered = render(flags).await;
        let mut registration = rendered.only("MutatingWebhookConfiguration").clone();
        for (index, entry) in [PODS, NAMESPACES].into_iter().enumerate() {
            let webhook = &mut registration["webhooks"][index];
            assert_eq!(webhook["name"], entry);
            webhook["clientConfig"] = self.webhooks.client_config(entry, change);
        }
        *self.ours.lock().unwrap() = registration["metadata"]["name"].as_str().unwrap().to_owned();
        self.cluster.send("create", registration).await;
    }

    async fn unregister_ours(&self) {
        let name = self.ours.lock().unwrap().clone();
        let delete = self.cluster.kubectl("delete mutatingwebhookconfiguration");
        delete.arg(name).succeed().await;
    }

    /// The calls for a Pod with these annotations. The API server refuses the Pod while its cache still contains the
    /// registration of an earlier test.
    async fn try_calls(&self, annotations: &Value) -> kube::Result<Vec<Call>> {
        self.webhooks.take_calls();
        let namespace = self.namespace.name();
        self.cluster.dry_run_pod(namespace, annotations.clone()).await?;
        Ok(self.webhooks.take_calls())
    }

    async fn calls(&self) -> Vec<Call> {
        self.try_calls(&self.annotations).await.unwrap()
    }

    /// Waits until the API server makes these calls for a Pod. A changed registration reaches its cache after a moment.
    async fn wait_for_calls(&self, expected: &[Call]) {
        self.wait_for_calls_with(&self.annotations, expected).await;
    }

    async fn wait_for_calls_with(&self, annotations: &Value, expected: &[Call]) {
        let what = format!("the calls are {expected:?}");
        eventually_within(NOMINAL_LIMIT, &what, async || {
            let calls = self.try_calls(annotations).await;
            if calls.as_ref().is_ok_and(|calls| calls == expected) {
                return Some(());
            }
            // The test harness prints this only if the test fails.
            println!("the calls are now {calls:?}");
            None
        })
        .await;
    }
}

/// The call of a webhook for a Pod without an annotation.
fn call(webhook: &str) -> Call {
    Call {
        webhook: webhook.to_owned(),
        image: IMAGE.to_owned(),
        ..Call::default()
    }
}

fn call_with_annotation(webhook: &str, annotation: &str) -> Call {
    Call {
        annotation: annotation.to_owned(),
        ..call(webhook)
    }
}

fn call_with_image(webhook: &str, image: &str) -> Call {
    Call {
        image: image.to_owned(),
        ..call(webhook)
    }
}

#[testkit::test]
async fn an_annotation_of_a_later_webhook_is_not_seen() {
    let test = Ordering::in_namespace("later", json!({})).await;
    test.register_ours(Change::None, &[]).await;
    test.register(POLICY_ENGINE, Change::Annotation("contoso")).await;
    // For an annotated Pod both registrations are in effect. This webhook is called again, because the Pod has changed.
    let both = [
        call_with_annotation(PODS, "other"),
        call_with_annotation(POLICY_ENGINE, "other"),
        call_with_annotation(PODS, "contoso"),
    ];
    test.wait_for_calls_with(&json!({ANNOTATION: "other"}), &both)
        .await;
    assert_eq!(test.calls().await, [call(POLICY_ENGINE)]);
}

#[testkit::test]
async fn an_annotation_is_seen_if_the_registration_sorts_last() {
    let test = Ordering::in_namespace("earlier", json!({})).await;
    test.register_ours(Change::None, &[LAST]).await;
    test.register(POLICY_ENGINE, Change::Annotation("contoso")).await;
    test.wait_for_calls(&[call(POLICY_ENGINE), call_with_annotation(PODS, "contoso")])
        .await;
}

#[testkit::test]
async fn a_later_annotation_does_not_replace_the_default_of_the_namespace() {
    for annotation in ["fabrikam", "none"] {
        let namespace = format!("labelled-{annotation}");
        let test = Ordering::in_namespace(&namespace, json!({ANNOTATION: "contoso"})).await;
        test.register_ours(Change::None, &[]).await;
        test.register(POLICY_ENGINE, Change::Annotation(annotation)).await;
        // This webhook is called once, before the annotation, and not again.
        test.wait_for_calls(&[call(NAMESPACES), call(POLICY_ENGINE)])
            .await;
    }
}

#[testkit::test]
async fn an_earlier_annotation_replaces_the_default_of_the_namespace() {
    let test = Ordering::in_namespace("labelled-last", json!({ANNOTATION: "contoso"})).await;
    test.register_ours(Change::None, &[LAST]).await;
    test.register(POLICY_ENGINE, Change::Annotation("none")).await;
    // `none` opts out, so this webhook is not called.
    test.wait_for_calls(&[call(POLICY_ENGINE)]).await;
    test.register(POLICY_ENGINE, Change::Annotation("fabrikam")).await;
    test.wait_for_calls(&[call(POLICY_ENGINE), call_with_annotation(PODS, "fabrikam")])
        .await;
}

#[testkit::test]
async fn an_annotation_of_a_mutating_admission_policy_is_seen() {
    let test = Ordering::in_namespace("policy", json!({})).await;
    test.register_ours(Change::None, &[]).await;
    let expression =
        format!(r#"Object{{metadata: Object.metadata{{annotations: {{"{ANNOTATION}": "contoso"}}}}}}"#);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "zz-stamp"},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": test.namespace}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]},
                ],
            },
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "zz-stamp"},
        "spec": {"policyName": "zz-stamp"},
    });
    test.cluster.send("apply", policy).await;
    test.cluster.send("apply", binding).await;
    test.wait_for_calls(&[call_with_annotation(PODS, "contoso")])
        .await;
}

#[testkit::test]
async fn an_image_that_is_rewritten_earlier_is_seen_in_one_call() {
    let test = Ordering::in_namespace("images-last", json!({ANNOTATION: "contoso"})).await;
    test.register_ours(Change::None, &[LAST]).await;
    test.register("swap", Change::Image(REWRITTEN)).await;
    test.wait_for_calls(&[call("swap"), call_with_image(NAMESPACES, REWRITTEN)])
        .await;
}

#[testkit::test]
async fn an_image_that_is_rewritten_later_is_seen_in_a_second_call() {
    let test = Ordering::in_namespace("images", json!({ANNOTATION: "contoso"})).await;
    test.register_ours(Change::None, &[]).await;
    test.register("zz-swap", Change::Image(REWRITTEN)).await;
    let calls = [
        call(NAMESPACES),
        call("zz-swap"),
        call_with_image(NAMESPACES, REWRITTEN),
    ];
    test.wait_for_calls(&calls).await;
}

#[testkit::test]
async fn a_webhook_that_reads_pull_secrets_finds_ours_only_if_it_sorts_later() {
    let reader = "vault-secrets-webhook";
    let secret = Change::Secret("acr-pull-contoso");
    let test = Ordering::in_namespace("readers", json!({}))
        .await
        .with_annotation("contoso");
    test.register_ours(secret, &[]).await;
    test.register(reader, Change::None).await;
    let [ours, theirs] = [PODS, reader].map(|webhook| call_with_annotation(webhook, "contoso"));
    let with_secret = Call {
        secrets: vec!["acr-pull-contoso".to_owned()],
        ..theirs.clone()
    };
    test.wait_for_calls(&[ours.clone(), with_secret]).await;
    test.unregister_ours().await;
    test.register_ours(secret, &[LAST]).await;
    test.wait_for_calls(&[theirs, ours]).await;
}
