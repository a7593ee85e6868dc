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

#[testkit::test]
async fn pods_have_the_labels_of_the_release() {
    let rendered = render(set(["podLabels.team=platform"])).await;
    let deployment = rendered.only("Deployment");
    let labels = deployment["spec"]["template"]["metadata"]["labels"]
        .as_object()
        .unwrap();
    for label in ["instance", "managed-by", "name", "version"] {
        let label = format!("app.kubernetes.io/{label}");
        assert_eq!(
            labels[&label], deployment["metadata"]["labels"][&label],
            "{label}"
        );
    }
    assert_eq!(labels["team"], "platform");
    // A new chart does not roll Pods that are the same.
    assert!(!labels.contains_key("helm.sh/chart"));
}

#[testkit::test]
async fn an_image_can_have_a_tag_and_a_digest() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let with_digest = format!("image.digest={digest}");
    for (flags, expected) in [
        (vec!["image.tag=v1"], ":v1".to_owned()),
        (vec![with_digest.as_str()], format!("@{digest}")),
        (
            vec!["image.tag=v1", with_digest.as_str()],
            format!(":v1@{digest}"),
        ),
    ] {
        let rendered = render(set(flags)).await;
        let container = &rendered.only("Deployment")["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], format!("acr-pull-webhook{expected}"));
    }
}

/// Every right, binding and policy names the same account.
#[testkit::test]
async fn another_service_account_has_the_same_permissions() {
    let rendered = render(set(["serviceAccount.create=false", "serviceAccount.name=mine"])).await;
    assert!(
        rendered
            .of_kind("ServiceAccount")
            .iter()
            .all(|account| account["metadata"]["name"] != "mine")
    );
    assert_eq!(
        rendered.only("Deployment")["spec"]["template"]["spec"]["serviceAccountName"],
        "mine"
    );
    let bindings = ["RoleBinding", "ClusterRoleBinding"]
        .map(|kind| rendered.of_kind(kind))
        .concat();
    let of_webhook = bindings
        .iter()
        .filter(|binding| binding["metadata"]["name"] != "acr-pull-webhook-test");
    let subjects: Vec<_> = of_webhook
        .map(|binding| &binding["subjects"][0]["name"])
        .collect();
    assert_eq!(subjects, ["mine"; 4]);
    let policies = rendered.of_kind("ValidatingAdmissionPolicy");
    assert_eq!(policies.len(), 3);
    for policy in policies {
        let condition = policy["spec"]["matchConditions"][0]["expression"]
            .as_str()
            .unwrap();
        assert!(
            condition.ends_with("'system:serviceaccount:acr-pull-webhook:mine'"),
            "{condition}"
        );
    }
}

#[testkit::test]
async fn additional_arguments_volumes_and_objects_are_rendered() {
    let rendered = render(set([
        "extraArgs={--log-level=debug}",
        "extraVolumes[0].name=more",
        "extraVolumeMounts[0].name=more",
        "extraVolumeMounts[0].mountPath=/more",
        "extraObjects[0].kind=ConfigMap",
        "extraObjects[0].apiVersion=v1",
        "extraObjects[0].metadata.name=\\{{ .Release.Name }}-more",
    ]))
    .await;
    let pod = &rendered.only("Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        container["args"].as_array().unwrap().last().unwrap(),
        "--log-level=debug"
    );
    assert_eq!(pod["volumes"], json!([{"name": "more"}]));
    assert_eq!(
        container["volumeMounts"],
        json!([{"name": "more", "mountPath": "/more"}])
    );
    rendered.named("ConfigMap", "acr-pull-webhook-more");
}

/// The test would fail in a namespace that the webhook does not serve.
#[testkit::test]
async fn helm_test_uses_a_namespace_that_the_webhook_serves() {
    for (flags, expected) in [
        (vec![], "default"),
        (vec!["namespaces={team-a,team-b}"], "team-a"),
        (vec!["namespaces={team-a}", "test.namespace=team-b"], "team-b"),
    ] {
        let rendered = render(set(flags)).await;
        let role = rendered.named("Role", "acr-pull-webhook-test");
        assert_eq!(role["metadata"]["namespace"], expected);
        let arguments = &rendered.only("Pod")["spec"]["containers"][0]["args"];
        let flag = format!("--namespace={expected}");
        assert!(
            arguments.as_array().unwrap().contains(&json!(flag)),
            "{arguments}"
        );
    }
}
