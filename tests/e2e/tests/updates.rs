//! The webhook's Pods are replaced. Cargo runs this test program last, by its name, as it replaces the replicas.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{
    client,
    load::{MIN_CREATED, while_pods_are_created},
    scenario::Scenario,
    webhook::{NAMESPACE, evict_one, replaced},
};
use k8s_openapi::{api::apps::v1::Deployment, jiff::Timestamp};
use kube::{Api, Client, api::Patch};
use serde_json::{Value, json};

#[testkit::test]
async fn all_pods_are_patched_during_a_rollout_and_an_eviction() {
    let client = client().await;
    let namespace = Scenario::Rollout.set_up(&client, json!({})).await;
    patch(&client, json!({"spec": {"replicas": 3}})).await;
    replaced(&client, 3).await;

    while_pods_are_created(&namespace, async |created| {
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": Timestamp::now().to_string()});
        patch(
            &client,
            json!({"spec": {"template": {"metadata": {"annotations": annotations}}}}),
        )
        .await;
        replaced(&client, 3).await;
        let by_rollout = created.get();
        assert!(
            by_rollout > MIN_CREATED,
            "only {by_rollout} Pods were created during the rollout"
        );

        evict_one(&client).await;
        replaced(&client, 3).await;
        println!(
            "{by_rollout} Pods were created during the rollout, {} until the end",
            created.get()
        );
    })
    .await;

    patch(&client, json!({"spec": {"replicas": 2}})).await;
    replaced(&client, 2).await;
}

async fn patch(client: &Client, patch: Value) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    deployments
        .patch("acr-pull-webhook", &Default::default(), &Patch::Merge(patch))
        .await
        .unwrap();
}
