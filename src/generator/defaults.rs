//! The generators that namespaces have by default, for Pods that say nothing: a label of the
//! Namespace, so that the API server itself can tell which Pods concern us.

use crate::{
    cluster::{Cluster, cluster_wide},
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
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The label of a Namespace.
pub const LABEL: &str = "acr-pull.dev/access-token";

/// The labelled namespaces, watched; none where only some namespaces are looked after, for Namespaces are the cluster's.
#[derive(Clone)]
pub struct NamespaceDefaults {
    client: Client,
    store: Option<Store<Item<PartialObjectMeta<Namespace>>>>,
    /// Namespaces that had no label a moment ago, until when that is believed.
    unlabelled: Arc<Mutex<HashMap<String, Instant>>>,
}

/// A label that is set meanwhile counts at once where the watch shows it, and otherwise after this.
const BELIEVED: Duration = Duration::from_secs(1);
/// When there are more, all are forgotten.
const MOST: usize = 1024;

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
            let places = cluster_wide(Api::all(cluster.client.clone()));
            let labelled = Selector::default().labels(LABEL);
            watch::store("watch of Namespaces", cluster, places, labelled, trim, |_| ())
        };
        Self {
            store: cluster.namespaces.is_cluster_wide().then(store),
            client: cluster.client.clone(),
            unlabelled: Arc::default(),
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
        if self.known(namespace).is_none() && self.was_unlabelled(namespace) {
            return Ok(None);
        }
        let what = format!("reading namespace {namespace}");
        let api = Api::<Item<PartialObjectMeta<Namespace>>>::all(self.client.clone());
        let found = kubernetes::call(&what, api.get_opt(namespace)).await?;
        let label = found.and_then(|namespace| label(namespace.meta()));
        if label.is_none() {
            let mut unlabelled = self.unlabelled.lock().unwrap_or_else(PoisonError::into_inner);
            if unlabelled.len() >= MOST {
                unlabelled.clear();
            }
            unlabelled.insert(namespace.to_owned(), Instant::now() + BELIEVED);
        }
        Ok(label)
    }

    fn was_unlabelled(&self, namespace: &str) -> bool {
        let unlabelled = self.unlabelled.lock().unwrap_or_else(PoisonError::into_inner);
        let until = unlabelled.get(namespace);
        until.is_some_and(|until| Instant::now() < *until)
    }
}

fn label(metadata: &ObjectMeta) -> Option<String> {
    metadata.labels.as_ref()?.get(LABEL).cloned()
}
