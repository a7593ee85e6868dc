//! The Deployment and its Pods.

use super::{
    api::{ApiServer, Unread, items, name, text},
    reason::Reason,
    report::Finding,
    target::Target,
};
use crate::untrusted::UntrustedText;
use serde_json::Value;

const CHECK: &str = "Deployment";

/// Checks that all replicas are ready. `pods` are the Pods of the Deployment.
pub fn check(target: &Target, pods: &Result<Vec<Value>, Unread>) -> Vec<Finding> {
    let namespace = &target.namespace;
    let deployment = match &target.deployment {
        Ok(deployment) => deployment,
        Err(Unread::NotFound) => {
            let message = format!(
                "namespace {namespace} has no Deployment of acr-pull-webhook; install it, or name its namespace by \
                 --webhook-namespace"
            );
            return vec![Finding::failed(CHECK, Reason::DeploymentNotFound, message)];
        }
        Err(unread) => return vec![unread.finding(CHECK, &format!("Deployments in namespace {namespace}"))],
    };
    let count = |pointer| {
        deployment
            .pointer(pointer)
            .and_then(Value::as_u64)
            .unwrap_or_default()
    };
    let (wanted, ready) = (count("/spec/replicas"), count("/status/readyReplicas"));
    let deployment = name(deployment);
    if wanted == 0 {
        let message = format!(
            "Deployment {namespace}/{deployment} has no replicas, so Pods that need a pull secret are refused"
        );
        let command = format!("kubectl scale deployment --namespace {namespace} {deployment} --replicas=2");
        return vec![Finding::failed(CHECK, Reason::DeploymentNotReady, message).command(command)];
    }
    if ready < wanted {
        let cause = pods.iter().flatten().find_map(why_not_ready);
        let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{ready} of {wanted} replicas of {namespace}/{deployment} are ready{cause}");
        let command = format!(
            "kubectl describe pods --namespace {namespace} --selector {}",
            selector(target)
        );
        return vec![Finding::failed(CHECK, Reason::DeploymentNotReady, message).command(command)];
    }
    if wanted == 1 {
        let message = format!(
            "{namespace}/{deployment} has one replica: while it is replaced, Pods that need a pull secret are refused"
        );
        let command = format!("kubectl scale deployment --namespace {namespace} {deployment} --replicas=2");
        return vec![Finding::warning(CHECK, Reason::SingleReplica, message).command(command)];
    }
    vec![Finding::ok(
        CHECK,
        format!("all {wanted} replicas of {namespace}/{deployment} are ready"),
    )]
}

/// The Pods of the Deployment.
pub async fn pods(api: &ApiServer, target: &Target) -> Result<Vec<Value>, Unread> {
    let selector = selector(target)
        .replace('=', "%3D")
        .replace(',', "%2C")
        .replace('/', "%2F");
    api.list(&format!(
        "/api/v1/namespaces/{}/pods?labelSelector={selector}",
        target.namespace
    ))
    .await
}

fn selector(target: &Target) -> String {
    let labels = target
        .deployment
        .as_ref()
        .ok()
        .and_then(|d| d.pointer("/spec/selector/matchLabels"));
    let labels = labels.and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<_> = labels
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.join(",")
}

/// Why a Pod is not ready, in the words of the scheduler or the kubelet.
fn why_not_ready(pod: &Value) -> Option<String> {
    let pod_name = name(pod);
    for container in items(pod, "/status/containerStatuses") {
        let waiting = text(container, "/state/waiting/reason");
        if !waiting.is_empty() {
            let message = UntrustedText::new(text(container, "/state/waiting/message")).at_most(200);
            return Some(format!("Pod {pod_name} waits with {waiting} ({message})"));
        }
    }
    let mut conditions = items(pod, "/status/conditions").iter();
    let failing = conditions.find(|condition| condition["status"] == "False")?;
    let message = UntrustedText::new(text(failing, "/message")).at_most(200);
    Some(format!(
        "Pod {pod_name} is not {} ({message})",
        text(failing, "/type")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(wanted: u64, ready: u64, pods: Value) -> Finding {
        let target = Target {
            namespace: "w".to_owned(),
            registrations: Ok(Vec::new()),
            deployment: Ok(json!({
                "metadata": {"name": "w"}, "status": {"readyReplicas": ready},
                "spec": {"replicas": wanted, "selector": {"matchLabels": {"app": "w"}}},
            })),
        };
        let Value::Array(pods) = pods else {
            panic!("{pods}")
        };
        check(&target, &Ok(pods)).remove(0)
    }

    #[test]
    fn the_finding_about_missing_replicas_has_the_kubelets_words() {
        assert_eq!(found(2, 2, json!([])).reason, None);
        let none = found(0, 0, json!([]));
        assert_eq!(
            none.commands,
            ["kubectl scale deployment --namespace w w --replicas=2"]
        );
        let waiting = json!([{"metadata": {"name": "w-1"}, "status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}]}}]);
        let finding = found(2, 1, waiting);
        assert_eq!(finding.reason, Some("DeploymentNotReady"));
        assert_eq!(
            finding.message,
            "1 of 2 replicas of w/w are ready: Pod w-1 waits with ImagePullBackOff (Back-off)"
        );
        let unscheduled = json!([{"metadata": {"name": "w-1"}, "status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}}]);
        assert!(
            found(2, 0, unscheduled)
                .message
                .contains("not PodScheduled (0/3 nodes are available)")
        );
        assert_eq!(found(1, 1, json!([])).reason, Some("SingleReplica"));
    }
}
