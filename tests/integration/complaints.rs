//! Kubelets' Events about pulls that a registry refuses. The test writes what a kubelet writes: Events and the status of
//! the Pod.

use crate::upkeep::warnings_about;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    time::{Duration, Instant},
};
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{from, pod, pull_secret_name},
};

const IMAGE: &str = "contoso.azurecr.io/team-a/app:1";

/// A kubelet that tries to pull again at intervals.
#[derive(Default)]
struct Kubelet(Cell<Option<Instant>>);

impl Kubelet {
    /// Reports that the registry refused the pull of the Pod `app`, but at most once a second.
    async fn report_refused_pull(&self, namespace: &TestNamespace) {
        if self
            .0
            .get()
            .is_none_or(|last| last.elapsed() >= Duration::from_secs(1))
        {
            self.0.set(Some(Instant::now()));
            report_refused_pull(namespace).await;
        }
    }
}

async fn report_refused_pull(namespace: &TestNamespace) {
    let event: Event = from(json!({
        "metadata": {"generateName": "app-"},
        "involvedObject": {"kind": "Pod", "namespace": namespace.name(), "name": "app"},
        "reason": "Failed",
        "message": format!("Failed to pull image \"{IMAGE}\": failed to authorize: 401 Unauthorized"),
        "type": "Warning",
        "lastTimestamp": Timestamp::now().to_string(),
    }));
    let events = namespace.api::<Event>();
    events.create(&PostParams::default(), &event).await.unwrap();
}

/// Sets the state of the only container of the Pod `app`.
async fn set_container_state(namespace: &TestNamespace, image_id: &str, state: Value) {
    let container = json!({
        "name": "app", "image": IMAGE, "imageID": image_id, "state": state, "ready": false, "restartCount": 0
    });
    let status = json!({"status": {"containerStatuses": [container]}});
    let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
    namespace
        .pods()
        .patch_status("app", &params, &patch)
        .await
        .unwrap();
}

#[testkit::test]
async fn a_useless_repair_reports_the_roles_until_the_pod_pulls() {
    let env = TestEnv::leading(&[], |_| ()).await;
    let kubelet = Kubelet::default();
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    set_container_state(namespace, "", json!({"waiting": {"reason": "ErrImagePull"}})).await;
    let first = namespace.renewed_at(&name).await;
    eventually("the first complaint is answered by a new token", async || {
        kubelet.report_refused_pull(namespace).await;
        let status = namespace.status(&name).await;
        (status.last_renewal_time?.0 > first).then(|| assert!(status.conditions[0].status == "True"))
    })
    .await;
    eventually("the second complaint is reported in the condition", async || {
        kubelet.report_refused_pull(namespace).await;
        let ready = namespace.status(&name).await.conditions.remove(0);
        if ready.status == "True" {
            return None;
        }
        assert_eq!(ready.reason, "RoleAssignmentNotFound");
        let roles = ["AcrPull", "Container Registry Repository Reader"];
        for text in roles.iter().chain(&[env.team_a.client_id, "contoso.azurecr.io"]) {
            assert!(ready.message.contains(text), "{}", ready.message);
        }
        Some(())
    })
    .await;
    eventually("one Event reports it", async || {
        let warnings = warnings_about(namespace, &name).await;
        assert!(warnings.len() <= 1, "{warnings:?}");
        (warnings == ["RoleAssignmentNotFound"]).then_some(())
    })
    .await;
    let metric = "renewals_total{outcome=\"Failed\",reason=\"RoleAssignmentNotFound\"}";
    env.webhook.wait_until_counted(metric, 1).await;
    // The token itself is fresh, so admissions are unaffected.
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("next", "contoso")).await),
        name
    );
    assert!(!namespace.status(&name).await.is_ready());

    let running = json!({"running": {"startedAt": "2026-05-05T12:00:00Z"}});
    set_container_state(namespace, "sha256:1", running).await;
    eventually(
        "the condition reports the token of a Pod that pulled",
        async || namespace.status(&name).await.is_ready().then_some(()),
    )
    .await;
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn a_renewal_does_not_hide_a_useless_repair() {
    let env = TestEnv::leading(&[], token_lifetime(40)).await;
    let kubelet = Kubelet::default();
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    set_container_state(namespace, "", json!({"waiting": {"reason": "ImagePullBackOff"}})).await;
    eventually("the condition reports the refusal", async || {
        kubelet.report_refused_pull(namespace).await;
        (!namespace.status(&name).await.is_ready()).then_some(())
    })
    .await;
    let renewals = "renewals_total{outcome=\"Renewed\"";
    assert!(!env.webhook.admin_get("/metrics").await.1.contains(renewals));
    eventually("the token is renewed, and the condition stays", async || {
        assert!(!namespace.status(&name).await.is_ready());
        let (_, metrics) = env.webhook.admin_get("/metrics").await;
        metrics.contains(renewals).then_some(())
    })
    .await;
    assert_eq!(
        namespace.status(&name).await.conditions[0].reason,
        "RoleAssignmentNotFound"
    );
}
