//! The generators that namespaces have by default, for Pods that say nothing: a label of the
//! Namespace, so that the API server itself can tell which Pods concern us.

use crate::{
    kubernetes::{self, api_problem},
    problem::Problem,
    telemetry::Readiness,
    watch,
};
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

/// The label of a Namespace.
pub const LABEL: &str = "acr-pull.dev/access-token";

/// The labelled namespaces, watched.
#[derive(Clone)]
pub struct NamespaceDefaults {
    client: Client,
    store: Store<PartialObjectMeta<Namespace>>,
}

// === impl NamespaceDefaults ===

impl NamespaceDefaults {
    /// Starts the watch.
    pub fn watch(client: &Client, readiness: &Readiness) -> Self {
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
        let api = Api::all(client.clone());
        Self {
            store: watch::start("watch of Namespaces", api, Some(LABEL), readiness, trim, |_| ()),
            client: client.clone(),
        }
    }

    /// The value of the namespace's label, from the watch alone.
    pub fn known(&self, namespace: &str) -> Option<String> {
        label(&self.store.get(&ObjectRef::new(namespace))?.metadata)
    }

    /// The same from the API server.
    pub async fn fetch(&self, namespace: &str) -> Result<Option<String>, Problem> {
        let what = format!("reading namespace {namespace}");
        let api = Api::<Namespace>::all(self.client.clone());
        let found = kubernetes::bounded(&what, api.get_metadata_opt(namespace)).await;
        let found = found.map_err(|error| api_problem(&what, error))?;
        Ok(found.and_then(|namespace| label(&namespace.metadata)))
    }
}

fn label(metadata: &ObjectMeta) -> Option<String> {
    metadata.labels.as_ref()?.get(LABEL).cloned()
}
