//! The webhook's own Pods.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

pub const NAMESPACE: &str = "acr-pull-webhook";

/// Each Pod of the webhook, those that are going away too.
pub async fn replicas(client: &Client) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=acr-pull-webhook");
    pods.list(&selector).await.unwrap().items
}
