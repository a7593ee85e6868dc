//! The generators that namespaces have by default, for Pods that say nothing: a label of the
//! Namespace, so that the API server itself can tell which Pods concern us.

use crate::{
    cluster::{Cluster, everywhere},
    kubernetes,
    problem::Problem,
    watch::{self, Item, Selector},
};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

/// The label of a Namespace.
pub const LABEL: &str = "acr-pull.dev/access-token";

/// The labelled namespaces, watched; none where only some namespaces are looked after, for Namespaces are the cluster's.
#[derive(Clone)]
pub struct NamespaceDefaults {
    client: Client,
    store: Option<Store<Item<PartialObjectMeta<Namespace>>>>,
}

// === impl NamespaceDefaults ===

impl NamespaceDefaults {
    /// Starts the watch.
    pub fn watch(cluster: &Cluster) -> Self {
        let trim = |namespace: &mut PartialObjectMeta<Namespace>| {
            let ObjectMeta {
                name,
                resource_version,
                labels,
                ..
            } = std::mem::take(&mut namespace.metadata);
            namespace.metadata = ObjectMeta {
                name,
                resource_version,
                labels: labels.map(|mut labels| {
                    labels.retain(|key, _| key == LABEL);
                    labels
                }),
                ..ObjectMeta::default()
            };
        };
        let store = || {
            let places = everywhere(Api::all(cluster.client.clone()));
            let labelled = Selector::default().labels(LABEL);
            watch::store("watch of Namespaces", cluster, places, labelled, trim, |_| ())
        };
        Self {
            store: cluster.reach.is_cluster().then(store),
            client: cluster.client.clone(),
        }
    }

    /// The value of the namespace's label, from the watch alone.
    pub fn known(&self, namespace: &str) -> Option<String> {
        label(self.store.as_ref()?.get(&ObjectRef::new(namespace))?.meta())
    }

    /// The same from the API server.
    pub async fn fetch(&self, namespace: &str) -> Result<Option<String>, Problem> {
        if self.store.is_none() {
            return Ok(None);
        }
        let what = format!("reading namespace {namespace}");
        let api = Api::<Item<PartialObjectMeta<Namespace>>>::all(self.client.clone());
        let found = kubernetes::call(&what, api.get_opt(namespace)).await?;
        Ok(found.and_then(|namespace| label(namespace.meta())))
    }
}

fn label(metadata: &ObjectMeta) -> Option<String> {
    metadata.labels.as_ref()?.get(LABEL).cloned()
}
