//! The Pods: their number, their nodes and their rollout.

use chart::helm::{render, set};
use serde_json::{Value, json};

#[testkit::test]
async fn one_replica_has_no_disruption_budget() {
    render::<String>([]).await.only("PodDisruptionBudget");
    let rendered = render(set(["replicas=1"])).await;
    assert!(rendered.of_kind("PodDisruptionBudget").is_empty());
}

/// With a surge, two Pods would need the same port of a node.
#[testkit::test]
async fn a_rollout_on_the_host_network_ends_an_old_pod_first() {
    let rollout = |deployment: &Value| deployment["spec"]["strategy"]["rollingUpdate"].clone();
    let rendered = render(set(["hostNetwork=true"])).await;
    let deployment = rendered.only("Deployment");
    assert_eq!(rollout(deployment), json!({"maxSurge": 0, "maxUnavailable": 1}));
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["dnsPolicy"], "ClusterFirstWithHostNet");
    let rendered = render::<String>([]).await;
    let deployment = rendered.only("Deployment");
    assert_eq!(rollout(deployment), json!({"maxSurge": 1, "maxUnavailable": 0}));
}

#[testkit::test]
async fn pods_run_on_linux_nodes() {
    let rendered = render(set(["nodeSelector.pool=system"])).await;
    let selector = json!({"kubernetes.io/os": "linux", "pool": "system"});
    let pods = &rendered.only("Deployment")["spec"]["template"]["spec"];
    assert_eq!(pods["nodeSelector"], selector);
    let pod_of_helm_test = &rendered.only("Pod")["spec"];
    assert_eq!(pod_of_helm_test["nodeSelector"], selector);
}
