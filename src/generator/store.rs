//! The generators and service accounts of the cluster, watched, with one live look
//! at the API server for what a watch has not seen yet.

use super::ACRAccessToken;
use crate::{
    kubernetes::{self, api_problem},
    problem::{Problem, Reason},
    telemetry::Readiness,
    watch,
};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::reflector::{ObjectRef, Store},
};
use std::{collections::BTreeMap, sync::Arc};

/// A generator as it is stored: an invalid one is kept with what is wrong about it,
/// so that it is refused by name and blinds nobody to the others.
pub type Guarded = DeserializeGuard<ACRAccessToken>;

/// The `ACRAccessToken`s of the cluster.
#[derive(Clone)]
pub struct Generators {
    client: Client,
    store: Store<Guarded>,
}

/// The service accounts of the cluster, of which only our annotations are kept.
#[derive(Clone)]
pub struct ServiceAccounts {
    client: Client,
    store: Store<PartialObjectMeta<ServiceAccount>>,
}

/// What we know of a service account.
pub type ServiceAccountView = BTreeMap<String, String>;

// === impl Generators ===

impl Generators {
    /// Starts the watch.
    pub fn watch(client: &Client, readiness: &Readiness) -> Self {
        let store = watch::start(
            "watch of ACRAccessTokens",
            Api::<Guarded>::all(client.clone()),
            readiness,
            |guard| {
                if let Ok(generator) = &mut guard.0 {
                    generator.metadata.managed_fields = None;
                    generator.metadata.annotations = None;
                }
            },
            |_| (),
        );
        Self {
            client: client.clone(),
            store,
        }
    }

    /// The generator, from the watch alone.
    pub fn known(&self, namespace: &str, name: &str) -> Option<Arc<Guarded>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// The generator, from the API server: it may have been made a moment before the Pod.
    pub async fn fetch(&self, namespace: &str, name: &str) -> Result<Arc<Guarded>, Problem> {
        let what = format!("reading ACRAccessToken {namespace}/{name}");
        let api = Api::<Guarded>::namespaced(self.client.clone(), namespace);
        match kubernetes::bounded(&what, api.get_opt(name)).await {
            Ok(Some(found)) => Ok(Arc::new(found)),
            Ok(None) => Err(Problem::new(
                Reason::GeneratorNotFound,
                format!(
                    "no ACRAccessToken {name:?} exists in namespace {namespace}; create it, or correct the Pod's annotation"
                ),
            )),
            Err(error) => Err(api_problem(&what, error)),
        }
    }
}

/// The generator inside the guard, or what is wrong with it.
pub fn valid(guard: &Guarded) -> Result<&ACRAccessToken, Problem> {
    guard.0.as_ref().map_err(|invalid| {
        let name = invalid.metadata.name.as_deref().unwrap_or_default();
        Problem::new(
            Reason::GeneratorInvalid,
            format!(
                "ACRAccessToken {name} cannot be read: {}; correct it",
                invalid.error
            ),
        )
    })
}

// === impl ServiceAccounts ===

impl ServiceAccounts {
    /// Starts the watch; `annotations` are the keys to keep.
    pub fn watch(client: &Client, readiness: &Readiness, annotations: &'static [&'static str]) -> Self {
        let store = watch::start(
            "watch of ServiceAccounts",
            Api::<PartialObjectMeta<ServiceAccount>>::all(client.clone()),
            readiness,
            move |account| {
                let metadata = &mut account.metadata;
                metadata.managed_fields = None;
                metadata.labels = None;
                metadata.owner_references = None;
                if let Some(kept) = &mut metadata.annotations {
                    kept.retain(|key, _| annotations.contains(&key.as_str()));
                }
            },
            |_| (),
        );
        Self {
            client: client.clone(),
            store,
        }
    }

    /// The service account's annotations, from the watch alone.
    pub fn known(&self, namespace: &str, name: &str) -> Option<ServiceAccountView> {
        let found = self.store.get(&ObjectRef::new(name).within(namespace))?;
        Some(found.metadata.annotations.clone().unwrap_or_default())
    }

    /// The same from the API server.
    pub async fn fetch(&self, namespace: &str, name: &str) -> Result<ServiceAccountView, Problem> {
        let what = format!("reading service account {namespace}/{name}");
        let api = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        match kubernetes::bounded(&what, api.get_metadata_opt(name)).await {
            Ok(Some(found)) => Ok(found.metadata.annotations.unwrap_or_default()),
            Ok(None) => Err(Problem::new(
                Reason::ServiceAccountNotFound,
                format!(
                    "service account {name:?} does not exist in namespace {namespace}; create it, or correct the Pod's serviceAccountName"
                ),
            )),
            Err(error) => Err(api_problem(&what, error)),
        }
    }
}
