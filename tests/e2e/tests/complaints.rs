//! Kubelets report missing pull secrets, including those of other owners.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Event, Node, Pod},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::objects::{ANNOTATION, from, pod_json, pull_secret_names};

/// A pull secret that the Pods reference and that never exists.
const FOREIGN: &str = "regcred";
/// The webhook attributes an Event within 5 s after a renewal to the previous token.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(7);

/// Waits for complaints about each running Pod. The kubelet syncs a changed Pod at once, and every Pod each 60 to 90 s.
async fn wait_for_complaints_of_running(namespace: &ScenarioNamespace, pods: &[String], after: Timestamp) {
    for name in pods {
        let label = Patch::Merge(json!({"metadata": {"labels": {"synced": "again"}}}));
        let params = PatchParams::default();
        namespace.pods().patch(name, &params, &label).await.unwrap();
        wait_for_complaints(namespace, name, after).await;
    }
}

/// A kubelet before 1.37 reports a missing pull secret at each sync of a Pod, a later kubelet only after a failed pull.
/// Therefore one Pod has an image that does not exist, and running Pods are checked only before 1.37.
#[testkit::test]
async fn a_missing_pull_secret_of_another_owner_causes_no_token() {
    let client = client().await;
    let namespace = Scenario::Complaints.set_up(&client, json!({})).await;
    let running = deploy(&namespace, 3).await;
    let own = namespace.only_pull_secret().await.name_any();
    let before = state(&namespace, &own).await;

    let scope = format!("repository:{}:pull", namespace.scenario.repository());
    namespace
        .create_generator("scoped", json!({"scope": scope}))
        .await;
    let image = format!("{}-that-was-not-pushed", namespace.scenario.image());
    let failing = pod_json("failing", &image, json!({ANNOTATION: "contoso, scoped"}));
    let failing = namespace.create_pod(&from(with_foreign(failing))).await;
    let [foreign, first, scoped] = pull_secret_names(&failing).try_into().unwrap();
    assert_eq!((foreign.as_str(), &first), (FOREIGN, &own));
    let issued = namespace.renewed_at(&scoped).await;
    let after = issued + CLOCK_TOLERANCE;
    wait_for_complaints(&namespace, "failing", after).await;
    if kubelets_report_for_running_pods(&client).await {
        wait_for_complaints_of_running(&namespace, &running, after).await;
    }

    // Now the same Pod lacks a pull secret of the webhook. Events with the same reason arrive in order: after this one
    // was handled, those above have been handled.
    namespace.delete_secret(&scoped).await;
    eventually("the deleted pull secret is repaired", async || {
        namespace.secrets().get_opt(&scoped).await.unwrap()?;
        (namespace.renewed_at(&scoped).await > issued).then_some(())
    })
    .await;
    let state = state(&namespace, &own).await;
    assert_eq!(state, before, "the pull secret was not renewed");
    let requests = azure::requests_of(&client, &namespace.scenario.subject()).await;
    assert_eq!(
        requests.len(),
        3,
        "one token for each pull secret and one for the repair"
    );
    for name in &running {
        namespace.wait_until_running(name).await;
    }
}

/// Creates a Deployment whose Pods reference a pull secret of the webhook and the foreign one.
async fn deploy(namespace: &ScenarioNamespace, replicas: usize) -> Vec<String> {
    let mut template = with_foreign(pod_json("", &namespace.scenario.image(), json!({})));
    let labels = json!({"app": "running"});
    template["metadata"] = json!({"labels": labels, "annotations": {ANNOTATION: "contoso"}});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
    let deployment = json!({"metadata": {"name": "running"}, "spec": spec});
    let deployments: Api<Deployment> = namespace.api();
    deployments
        .create(
            &PostParams::default(),
            &serde_json::from_value(deployment).unwrap(),
        )
        .await
        .unwrap();
    let pods = eventually("the Deployment has its Pods", async || {
        let selector = ListParams::default().labels("app=running");
        let pods = namespace.api::<Pod>().list(&selector).await.unwrap().items;
        (pods.len() == replicas).then_some(pods)
    })
    .await;
    let names: Vec<_> = pods.iter().map(Pod::name_any).collect();
    for name in &names {
        namespace.wait_until_running(name).await;
    }
    names
}

fn with_foreign(mut pod: Value) -> Value {
    pod["spec"]["imagePullSecrets"] = json!([{"name": FOREIGN}]);
    pod
}

/// Waits until the kubelet has reported the foreign pull secret more than once, and once after this time.
async fn wait_for_complaints(namespace: &ScenarioNamespace, pod: &str, after: Timestamp) {
    let events = namespace.api::<Event>();
    let about =
        format!("involvedObject.kind=Pod,involvedObject.name={pod},reason=FailedToRetrieveImagePullSecret");
    let selector = ListParams::default().fields(&about);
    eventually(&format!("the kubelet reports {FOREIGN} of {pod}"), async || {
        let mut all = events.list(&selector).await.unwrap().items;
        all.retain(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            message.contains(&format!("({FOREIGN})"))
        });
        let times: i32 = all.iter().filter_map(|event| event.count).sum();
        let last = all
            .iter()
            .filter_map(|event| event.last_timestamp.as_ref())
            .max()?;
        (times > 1 && last.0 > after).then_some(())
    })
    .await;
}

async fn kubelets_report_for_running_pods(client: &Client) -> bool {
    let nodes = Api::<Node>::all(client.clone());
    let nodes = nodes.list(&Default::default()).await.unwrap().items;
    nodes.iter().all(|node| {
        let version = &node
            .status
            .as_ref()
            .unwrap()
            .node_info
            .as_ref()
            .unwrap()
            .kubelet_version;
        let minor = version.strip_prefix("v1.").unwrap().split('.').next().unwrap();
        minor.parse::<u32>().unwrap() < 37
    })
}

/// Values that change when a pull secret is renewed.
async fn state(namespace: &ScenarioNamespace, name: &str) -> (Timestamp, Option<String>) {
    let secret = namespace.secrets().get(name).await.unwrap();
    (namespace.renewed_at(name).await, secret.metadata.resource_version)
}
