//! The Pods of the webhook.

use crate::eventually;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{EvictParams, ListParams},
};

pub const NAMESPACE: &str = "acr-pull-webhook";

/// All Pods of the webhook, including those that are terminating.
pub async fn replicas(client: &Client) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=acr-pull-webhook");
    pods.list(&selector).await.unwrap().items
}

/// Evicts a replica, as a drain of its node does, and waits until it is gone.
pub async fn evict_one(client: &Client) {
    let replica = replicas(client).await[0].name_any();
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    pods.evict(&replica, &EvictParams::default()).await.unwrap();
    eventually("the evicted replica is gone", async || {
        pods.get_opt(&replica).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// Waits until all Pods are available replicas of the newest revision.
pub async fn replaced(client: &Client, wanted: i32) {
    let deployments = Api::<Deployment>::namespaced(client.clone(), NAMESPACE);
    eventually(
        &format!("{wanted} replicas are available, and no other Pod exists"),
        async || {
            let deployment = deployments.get("acr-pull-webhook").await.unwrap();
            let status = deployment.status?;
            let counts = [
                status.replicas,
                status.updated_replicas,
                status.available_replicas,
            ];
            let complete = status.observed_generation == deployment.metadata.generation
                && counts.iter().all(|count| count.unwrap_or_default() == wanted);
            (complete && replicas(client).await.len() == wanted as usize).then_some(())
        },
    )
    .await;
}
