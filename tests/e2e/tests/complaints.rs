//! Kubelets complain of pull secrets that are missing, whoever was to make them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use acr_pull_webhook::pull_secret::ACRPullSecret;
use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Event, Node, Pod, Secret},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PostParams},
};
use serde_json::{Value, json};
use testkit::objects::{ANNOTATION, from, pod_json};

/// A pull secret that the Pods name and that nobody makes.
const FOREIGN: &str = "regcred";
/// An Event that is at most 5 s later than a renewal is taken for one about the token before, which would be no test.
const LATER: SignedDuration = SignedDuration::from_secs(7);

/// A kubelet before 1.37 says it of a Pod with each of its syncs, also when the Pod runs; a later one only when a pull has
/// failed. So there is a Pod whose pull fails with every release, and Pods that run prove something only before 1.37.
#[testkit::test]
async fn a_foreign_pull_secret_that_does_not_exist_causes_no_token() {
    let client = client().await;
    let team = Scenario::Complaints.set_up(&client, json!({})).await;
    let running = deploy(&team, 3).await;
    let pull_secret = team.only_pull_secret().await;
    let ours = pull_secret.name_any();
    let before = state(&team, &ours).await;

    let scope = format!("repository:{}:pull", team.scenario.repository());
    team.create_generator("scoped", json!({"scope": scope})).await;
    let image = format!("{}-that-was-not-pushed", team.scenario.image());
    let failing = with_foreign(pod_json(
        "failing",
        &image,
        json!({ANNOTATION: "contoso, scoped"}),
    ));
    let failing = team.create_pod(&from(failing)).await;
    let named = failing.spec.unwrap().image_pull_secrets.unwrap();
    let [foreign, first, second] = named.try_into().unwrap();
    assert_eq!((foreign.name.as_str(), &first.name), (FOREIGN, &ours));
    let scoped = second.name;
    let made = renewed(&team, &scoped).await;
    complains(&team, "failing", made + LATER).await;

    if kubelets_complain_of_pods_that_run(&client).await {
        for name in &running {
            // The kubelet syncs a Pod that has changed, as it does by itself each 60 to 90 s.
            let label = Patch::Merge(json!({"metadata": {"labels": {"synced": "again"}}}));
            team.api::<Pod>()
                .patch(name, &Default::default(), &label)
                .await
                .unwrap();
            complains(&team, name, made + LATER).await;
        }
    }

    // The same Pod now misses one of ours as well. The Events of one reason come in their order: when this one has been
    // answered, those above have been read.
    let secrets = team.api::<Secret>();
    secrets.delete(&scoped, &Default::default()).await.unwrap();
    eventually("the pull secret that was deleted is repaired", async || {
        (secrets.get_opt(&scoped).await.unwrap().is_some() && renewed(&team, &scoped).await > made)
            .then_some(())
    })
    .await;
    assert_eq!(state(&team, &ours).await, before, "it was made anew");
    let tokens = azure::requests_of(&client, &team.scenario.subject()).await.len();
    assert_eq!(tokens, 3, "one for each pull secret, and one for the repair");
    for name in &running {
        team.wait_until_running(name).await;
    }
}

/// Pods of a Deployment that run by a pull secret of ours, and the foreign one beside it.
async fn deploy(team: &ScenarioNamespace, replicas: usize) -> Vec<String> {
    let mut template = with_foreign(pod_json("", &team.scenario.image(), json!({})));
    let labels = json!({"app": "running"});
    template["metadata"] = json!({"labels": labels, "annotations": {ANNOTATION: "contoso"}});
    let spec = json!({"replicas": replicas, "selector": {"matchLabels": labels}, "template": template});
    let deployment = json!({"metadata": {"name": "running"}, "spec": spec});
    let deployments: Api<Deployment> = team.api();
    deployments
        .create(
            &PostParams::default(),
            &serde_json::from_value(deployment).unwrap(),
        )
        .await
        .unwrap();
    let pods = eventually("the Deployment has its Pods", async || {
        let selector = ListParams::default().labels("app=running");
        let pods = team.api::<Pod>().list(&selector).await.unwrap().items;
        (pods.len() == replicas).then_some(pods)
    })
    .await;
    let names: Vec<_> = pods.iter().map(Pod::name_any).collect();
    for name in &names {
        team.wait_until_running(name).await;
    }
    names
}

fn with_foreign(mut pod: Value) -> Value {
    pod["spec"]["imagePullSecrets"] = json!([{"name": FOREIGN}]);
    pod
}

/// Waits until the kubelet has complained of the foreign pull secret more than once, and once after this time.
async fn complains(team: &ScenarioNamespace, pod: &str, after: Timestamp) {
    let events = team.api::<Event>();
    let about =
        format!("involvedObject.kind=Pod,involvedObject.name={pod},reason=FailedToRetrieveImagePullSecret");
    let selector = ListParams::default().fields(&about);
    eventually(&format!("the kubelet misses {FOREIGN} of {pod}"), async || {
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

async fn kubelets_complain_of_pods_that_run(client: &Client) -> bool {
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

/// What changes when a pull secret is made anew.
async fn state(team: &ScenarioNamespace, name: &str) -> (Timestamp, Option<String>) {
    let secret = team.secrets().get(name).await.unwrap();
    (renewed(team, name).await, secret.metadata.resource_version)
}

async fn renewed(team: &ScenarioNamespace, name: &str) -> Timestamp {
    let pull_secret = team.api::<ACRPullSecret>().get(name).await.unwrap();
    pull_secret.status.unwrap().last_renewal_time.unwrap().0
}
