//! The webhook's own Pods are replaced. Cargo runs this last, by name, for it leaves other replicas than it found.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{
    client, eventually,
    team::{ANNOTATION, Settled, TEAMS, pod},
    webhook::{self, NAMESPACE},
};
use futures::future::join_all;
use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, EvictParams, Patch},
};
use serde_json::{Value, json};
use std::cell::Cell;

const CREATORS: usize = 4;
/// Far fewer than are created in the time of any rollout.
const FEW: usize = 50;

#[tokio::test]
async fn no_pod_is_refused_or_left_unpatched_while_replicas_are_replaced_and_evicted() {
    let client = client().await;
    let team = TEAMS[25].settle(&client, json!({})).await;
    patch(&client, json!({"spec": {"replicas": 3}})).await;
    replaced(&client, 3).await;

    let (created, ended) = (Cell::new(0), Cell::new(false));
    let creators = join_all((0..CREATORS).map(|n| create(&team, n, &created, &ended)));
    let replace = async {
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": Timestamp::now().to_string()});
        patch(
            &client,
            json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}),
        )
        .await;
        replaced(&client, 3).await;
        let by_rollout = created.get();
        assert!(
            by_rollout > FEW,
            "only {by_rollout} Pods were created during the rollout"
        );

        let replica = webhook::replicas(&client).await[0].name_any();
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
        pods.evict(&replica, &EvictParams::default()).await.unwrap();
        eventually("the evicted replica is gone", async || {
            pods.get_opt(&replica).await.unwrap().is_none().then_some(())
        })
        .await;
        replaced(&client, 3).await;
        println!(
            "{by_rollout} Pods were created during the rollout, {} until the end",
            created.get()
        );
        ended.set(true);
    };
    let (wrong, ()) = tokio::join!(creators, replace);
    let wrong = wrong.concat();
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        created.get()
    );

    patch(&client, json!({"spec": {"replicas": 2}})).await;
    replaced(&client, 2).await;
}

/// Creates and deletes Pods until told to end; returns what was wrong with them.
async fn create(team: &Settled, creator: usize, created: &Cell<usize>, ended: &Cell<bool>) -> Vec<String> {
    let pods = team.api::<Pod>();
    let mut wrong = Vec::new();
    for n in 0.. {
        if ended.get() {
            break;
        }
        let name = format!("app-{creator}-{n}");
        // Some have to wait for a token, the others find it there.
        let fresh = n % 10 == 0;
        let generator = if fresh { name.as_str() } else { "contoso" };
        if fresh {
            team.generator(generator, json!({})).await;
        }
        let mut pod = pod(&name, &team.team.image(), json!({ANNOTATION: generator}));
        // Admission is all that matters: no node is bothered.
        pod["spec"]["schedulingGates"] = json!([{"name": "acr-pull.dev/e2e"}]);
        match team.try_create_pod(pod).await {
            Err(error) => wrong.push(format!("{} {name}: {error}", Timestamp::now())),
            Ok(pod) => {
                let labelled = pod
                    .labels()
                    .get("acr-pull.dev/injected")
                    .is_some_and(|value| value == "true");
                if !labelled || pod.spec.unwrap().image_pull_secrets.is_none() {
                    wrong.push(format!("{} {name} was not patched", Timestamp::now()));
                }
                pods.delete(&name, &DeleteParams::default()).await.unwrap();
            }
        }
        created.set(created.get() + 1);
    }
    wrong
}

async fn patch(client: &Client, patch: Value) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    deployments
        .patch("acr-pull-webhook", &Default::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}

/// Waits until there are so many replicas, all of them new and available.
async fn replaced(client: &Client, replicas: i32) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    eventually(
        &format!("{replicas} replicas are available, and no other is there"),
        async || {
            let deployment = deployments.get("acr-pull-webhook").await.unwrap();
            let status = deployment.status?;
            let counts = [
                status.replicas,
                status.updated_replicas,
                status.available_replicas,
            ];
            let complete = status.observed_generation == deployment.metadata.generation
                && counts.iter().all(|count| *count == Some(replicas));
            (complete && webhook::replicas(client).await.len() == replicas as usize).then_some(())
        },
    )
    .await;
}
