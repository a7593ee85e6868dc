//! The objects of the cluster.

use e2e::eventually;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
    discovery::{Discovery, verbs},
};
use std::collections::BTreeSet;

/// All objects by kind, namespace and name, without Events.
pub async fn everything(client: &Client) -> BTreeSet<String> {
    // Discovery fails while the API server still lists the group of a kind that was deleted a moment ago.
    let kinds = eventually("all API groups are discovered", async || {
        Discovery::new(client.clone()).run().await.ok()
    })
    .await;
    let mut all = BTreeSet::new();
    for group in kinds.groups() {
        for (kind, can) in group.recommended_resources() {
            if kind.kind == "Event" || !can.supports_operation(verbs::LIST) {
                continue;
            }
            let api = Api::<DynamicObject>::all_with(client.clone(), &kind);
            let objects = match api.list_metadata(&ListParams::default()).await {
                // The kind was deleted in the meantime, or the API server does not store it.
                Err(kube::Error::Api(status)) if [404, 405].contains(&status.code) => continue,
                other => other.unwrap(),
            };
            for object in objects {
                let namespace = object
                    .namespace()
                    .map_or(String::new(), |namespace| namespace + "/");
                all.insert(format!(
                    "{}.{} {namespace}{}",
                    kind.plural,
                    kind.group,
                    object.name_any()
                ));
            }
        }
    }
    all
}
