//! API servers and clusters that are stricter than the default.

use super::release::Release;
use chart::{
    NAME,
    helm::{chart, set, values_file},
    repository,
};
use k8s_openapi::api::{core::v1::Pod, policy::v1::PodDisruptionBudget};
use kube::{
    ResourceExt,
    api::{EvictParams, Patch, PatchParams},
};
use serde_json::json;
use testkit::{
    eventually,
    objects::{ANNOTATION, dry_run, from},
};

/// As the SecurityContextConstraints restricted-v2 of OpenShift, for a namespace with the range 1000700000/10000.
const RESTRICTED_V2: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: restricted-v2}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: ["*"], resources: [pods], operations: [CREATE]}]
  variables:
    - name: users
      expression: >-
        [object.spec.?securityContext.?runAsUser, object.spec.?securityContext.?fsGroup] +
        object.spec.containers.map(container, container.?securityContext.?runAsUser)
  validations:
    - expression: variables.users.all(user, user.optMap(id, id >= 1000700000 && id < 1000710000).orValue(true))
      message: unable to validate against any security context constraint
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: restricted-v2}
spec: {policyName: restricted-v2, validationActions: [Deny]}
"#;
const REFUSED_BY_RESTRICTED_V2: &str = "unable to validate against any security context constraint";

#[testkit::test]
async fn a_limited_priority_class_is_allowed_by_the_quota() {
    let release = Release::none().await;
    release.install(set([])).await;
    release.wait_for_pods(2).await;
    release.uninstall().await;
    release.wait_for_pods(0).await;
    // The control plane limits the class: without the quota it refuses the Pods.
    release.install(set(["resourceQuota.enabled=false"])).await;
    let refusal = "insufficient quota to match these scopes";
    release.wait_until_replica_set_reports(refusal).await;
    assert_eq!(release.pods().await.len(), 0);
    release.upgrade(set(["resourceQuota.enabled=true"])).await;
    release.wait_for_pods(2).await;
    release.uninstall().await;
}

#[testkit::test]
async fn a_limited_priority_class_is_allowed_by_the_quota_of_kustomize() {
    let release = Release::none().await;
    let namespace = "delete --ignore-not-found namespace";
    release.kubectl(namespace).arg(NAME).succeed().await;
    let base = repository("deploy/kustomize/base");
    release.kubectl("apply --kustomize").arg(&base).succeed().await;
    release.wait_for_pods(2).await;
    release.kubectl("delete --kustomize").arg(&base).succeed().await;
}

#[testkit::test]
async fn the_values_for_openshift_leave_users_to_the_platform() {
    let release = Release::none().await;
    release.send("apply", RESTRICTED_V2).await;
    let probe: Pod = from(json!({
        "metadata": {"name": "probe"},
        "spec": {"securityContext": {"runAsUser": 1}, "containers": [{"name": "app", "image": "none"}]},
    }));
    eventually("the policy is in effect", async || {
        let created = release.namespaced("default").create(&dry_run(), &probe).await;
        created
            .err()?
            .to_string()
            .contains(REFUSED_BY_RESTRICTED_V2)
            .then_some(())
    })
    .await;
    release.install(set([])).await;
    release
        .wait_until_replica_set_reports(REFUSED_BY_RESTRICTED_V2)
        .await;
    assert_eq!(release.pods().await.len(), 0);
    release
        .upgrade(values_file(chart().join("values-openshift.yaml")))
        .await;
    // The first Pod of the rollout. It is never ready, because the control plane has no node.
    release.wait_for_pods(1).await;
    release.uninstall().await;
}

#[testkit::test]
async fn a_drain_is_never_blocked_for_good() {
    let release = Release::none().await;
    for replicas in 1..=3 {
        release
            .install(set([format!("replicas={replicas}").as_str()]))
            .await;
        let pods = release.wait_for_pods(replicas).await;
        for pod in &pods {
            report_ready(&release, &pod.name_any()).await;
        }
        // With one replica there is no budget.
        if replicas > 1 {
            let budgets = release.namespaced::<PodDisruptionBudget>(NAME);
            eventually("the budget counts the ready Pods", async || {
                let healthy = budgets.get(NAME).await.unwrap().status?.current_healthy;
                (healthy == i32::try_from(replicas).unwrap()).then_some(())
            })
            .await;
        }
        let evicted = release.namespaced::<Pod>(NAME);
        let evicted = evicted.evict(&pods[0].name_any(), &EvictParams::default()).await;
        evicted.unwrap();
        release.uninstall().await;
        release.wait_for_pods(0).await;
    }
}

/// Sets the status of a Pod, as the kubelet of a node does.
async fn report_ready(release: &Release, pod: &str) {
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let pods = release.namespaced::<Pod>(NAME);
    let params = PatchParams::default();
    pods.patch_status(pod, &params, &Patch::Merge(ready))
        .await
        .unwrap();
}

/// The steps that docs/operations.md recommends.
#[testkit::test]
async fn a_deleted_namespace_can_be_repaired() {
    let release = Release::none().await;
    release.install(set([])).await;
    release.kubectl("delete namespace").arg(NAME).succeed().await;
    let annotated = json!({ANNOTATION: "contoso"});
    let refused = release
        .dry_run_pod("default", annotated.clone())
        .await
        .unwrap_err();
    let reason = r#"service "acr-pull-webhook" not found"#;
    assert!(refused.to_string().contains(reason), "{refused}");
    release.dry_run_pod("default", json!({})).await.unwrap();
    let registration = "delete mutatingwebhookconfiguration acr-pull-webhook";
    release.kubectl(registration).succeed().await;
    eventually("annotated Pods are admitted", async || {
        release.dry_run_pod("default", annotated.clone()).await.ok()
    })
    .await;
    // Helm's own record was in the namespace.
    release.install(set([])).await;
    release.uninstall().await;
    release.wait_until_no_object_is_left().await;
}
