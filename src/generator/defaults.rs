//! The default generator of a namespace, for Pods without the annotation. A label of the Namespace names it, because
//! the API server can select Pods by the labels of their Namespace and send only these to the webhook.

use crate::{
    cluster::{Cluster, cluster_wide},
    kubernetes,
    names::NamespaceName,
    problem::Problem,
    ttl_cache::TtlCache,
    watch::{self, Item, Selector, WatchedStore},
};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, Resource, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use std::{sync::Arc, time::Duration};

/// The label of a Namespace that names its default generator.
pub const DEFAULT_GENERATOR_LABEL: &str = "acr-pull.dev/access-token";

/// The label of a Namespace with the mode of its default generator: `audit` or `enforce`.
pub const DEFAULT_MODE_LABEL: &str = "acr-pull.dev/access-token-mode";

/// The labels of a Namespace that has a default generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultLabels {
    /// The reference to the generator.
    pub generator: String,
    /// The mode, if it is set.
    pub mode: Option<String>,
}

/// How long a namespace without the label is remembered. A label that is set in the meantime takes effect when the
/// watch shows it, and after this time at the latest.
const UNLABELLED_TTL: Duration = Duration::from_secs(1);

/// The watched Namespaces that have the label.
#[derive(Clone)]
pub struct NamespaceDefaults {
    client: Client,
    /// `None` if only some namespaces are served: Namespaces are cluster-scoped, so they cannot be watched then.
    store: Option<WatchedStore<PartialObjectMeta<Namespace>>>,
    /// Namespaces that had no label when they were last read.
    unlabelled: Arc<TtlCache<NamespaceName, ()>>,
}

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
                    labels.retain(|key, _| {
                        [DEFAULT_GENERATOR_LABEL, DEFAULT_MODE_LABEL].contains(&key.as_str())
                    });
                    labels
                }),
                ..ObjectMeta::default()
            };
        };
        let watch_labelled = || {
            let scopes = cluster_wide(Api::all(cluster.client.clone()));
            let labelled = Selector::default().labels(DEFAULT_GENERATOR_LABEL);
            watch::store("watch of Namespaces", cluster, scopes, labelled, trim, |_| ())
        };
        Self {
            store: cluster.namespaces.is_cluster_wide().then(watch_labelled),
            client: cluster.client.clone(),
            unlabelled: Arc::new(TtlCache::new(UNLABELLED_TTL)),
        }
    }

    /// The labels of the namespace, as the watch shows them.
    pub fn cached(&self, namespace: &NamespaceName) -> Option<DefaultLabels> {
        labels(self.store.as_ref()?.get(&ObjectRef::new(namespace))?.meta())
    }

    /// The labels of the namespace, as the API server has them.
    pub async fn fetch(&self, namespace: &NamespaceName) -> Result<Option<DefaultLabels>, Problem> {
        if self.store.is_none() {
            return Ok(None);
        }
        if self.cached(namespace).is_none() && self.unlabelled.get(namespace).is_some() {
            return Ok(None);
        }
        let what = format!("reading namespace {namespace}");
        let api = Api::<Item<PartialObjectMeta<Namespace>>>::all(self.client.clone());
        let found = kubernetes::call(&what, api.get_opt(namespace)).await?;
        let labels = found.and_then(|namespace| labels(namespace.meta()));
        if labels.is_none() {
            self.unlabelled.put(namespace.clone(), ());
        }
        Ok(labels)
    }
}

fn labels(metadata: &ObjectMeta) -> Option<DefaultLabels> {
    let labels = metadata.labels.as_ref()?;
    Some(DefaultLabels {
        generator: labels.get(DEFAULT_GENERATOR_LABEL)?.clone(),
        mode: labels.get(DEFAULT_MODE_LABEL).cloned(),
    })
}
