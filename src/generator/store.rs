//! The generators and service accounts of the cluster, watched, with one live look
//! at the API server for what a watch has not seen yet.

use super::{
    ACRAccessToken, ACRAccessTokenSpec, ClusterGenerator, Epoch, Reference,
    namespaces::{self, ALLOWED_NAMESPACES},
    reference::Kind,
};
use crate::{
    cluster::{Cluster, WatchScopes, cluster_wide},
    kubernetes::{CallError, api_problem},
    problem::{Problem, Reason},
    untrusted::UntrustedText,
    watch::{self, Item, Selector, Watched},
};
use k8s_openapi::{
    api::core::v1::{ObjectReference, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, sync::Arc};

/// The generators of the cluster, of both kinds. An invalid one is kept with what is wrong
/// about it, so that it is refused by name and blinds nobody to the others.
#[derive(Clone)]
pub struct Generators {
    client: Client,
    namespaced: Store<Item<ACRAccessToken>>,
    /// None where only some namespaces are looked after.
    cluster: Option<Store<Item<ClusterGenerator>>>,
}

/// A generator that exists, valid or not.
pub enum Generator {
    /// One of the Pod's namespace.
    Namespaced(Arc<Item<ACRAccessToken>>),
    /// One for all namespaces.
    Cluster(Arc<Item<ClusterGenerator>>),
}

/// The service accounts of the cluster, of which only our annotations are kept.
#[derive(Clone)]
pub struct ServiceAccounts {
    client: Client,
    store: Store<Item<PartialObjectMeta<ServiceAccount>>>,
}

/// What we know of a service account.
pub type ServiceAccountView = BTreeMap<String, String>;

impl Watched for ACRAccessToken {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::decode(deserializer, |metadata, Body { spec }| Self { metadata, spec })
    }
}

impl Watched for ClusterGenerator {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::decode(deserializer, |metadata, Body { spec }| Self { metadata, spec })
    }
}

/// What a generator has beside its metadata.
#[derive(Deserialize)]
struct Body<S> {
    spec: S,
}

// === impl Generators ===

impl Generators {
    /// Starts the watches.
    pub fn watch(cluster: &Cluster, epoch: &Epoch) -> Self {
        let of_the_cluster = || {
            let places = cluster_wide(Api::all(cluster.client.clone()));
            store("watch of ClusterGenerators", cluster, places, epoch)
        };
        Self {
            namespaced: store("watch of ACRAccessTokens", cluster, cluster.watch_scopes(), epoch),
            cluster: cluster.namespaces.is_cluster_wide().then(of_the_cluster),
            client: cluster.client.clone(),
        }
    }

    /// The generator, from the watch alone.
    pub fn known(&self, namespace: &str, reference: Reference<'_>) -> Option<Generator> {
        match reference.kind {
            Kind::AccessToken => {
                let object = ObjectRef::new(reference.name).within(namespace);
                self.namespaced.get(&object).map(Generator::Namespaced)
            }
            Kind::ClusterGenerator => {
                let object = ObjectRef::new(reference.name);
                self.cluster.as_ref()?.get(&object).map(Generator::Cluster)
            }
        }
    }

    /// The generator, from the API server: it may have been made a moment before the Pod.
    pub async fn fetch(&self, namespace: &str, reference: Reference<'_>) -> Result<Generator, Problem> {
        match reference.kind {
            Kind::AccessToken => {
                let api = Api::namespaced(self.client.clone(), namespace);
                let place = format!("in namespace {namespace}");
                get(&api, reference, &place)
                    .await
                    .map(Arc::new)
                    .map(Generator::Namespaced)
            }
            Kind::ClusterGenerator if self.cluster.is_none() => Err(Problem::new(
                Reason::GeneratorNotFound,
                format!(
                    "{reference} cannot be used here: this webhook looks after the namespaces of --namespaces alone; \
                     name an ACRAccessToken of namespace {namespace}"
                ),
            )),
            Kind::ClusterGenerator => {
                let api = Api::all(self.client.clone());
                get(&api, reference, "in the cluster")
                    .await
                    .map(Arc::new)
                    .map(Generator::Cluster)
            }
        }
    }
}

fn store<K: Watched>(
    what: &'static str,
    cluster: &Cluster,
    places: WatchScopes<Item<K>>,
    epoch: &Epoch,
) -> Store<Item<K>> {
    let trim = |generator: &mut K| {
        if let Some(annotations) = &mut generator.meta_mut().annotations {
            annotations.retain(|key, _| key == ALLOWED_NAMESPACES);
        }
    };
    let epoch = epoch.clone();
    watch::store(what, cluster, places, Selector::default(), trim, move |_| {
        epoch.turn()
    })
}

async fn get<K: Watched>(
    api: &Api<Item<K>>,
    reference: Reference<'_>,
    place: &str,
) -> Result<Item<K>, Problem> {
    let what = format!("reading {reference} {place}");
    match watch::get_object(api, reference.name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Problem::new(
            Reason::GeneratorNotFound,
            format!(
                "no {} {:?} exists {place}; create it, or correct the name",
                reference.kind.as_str(),
                reference.name
            ),
        )),
        Err(CallError::TooLarge(bytes)) => Err(Problem::new(
            Reason::GeneratorInvalid,
            format!("{reference} cannot be used: it has more than {bytes} bytes of JSON; correct it"),
        )),
        Err(error) => Err(api_problem(&what, error)),
    }
}

// === impl Generator ===

impl Generator {
    /// As Events refer to it.
    pub fn object_reference(&self) -> ObjectReference {
        match self {
            Generator::Namespaced(object) => object.object_ref(&()),
            Generator::Cluster(object) => object.object_ref(&()),
        }
    }

    /// The spec of an `ACRAccessToken` for Pods of a namespace, or what is wrong with the object.
    pub fn spec(&self, reference: Reference<'_>, pods: &str) -> Result<&ACRAccessTokenSpec, Problem> {
        let invalid = |why: &str| {
            Problem::new(
                Reason::GeneratorInvalid,
                format!(
                    "{reference} cannot be used: {}; correct it",
                    UntrustedText::new(why)
                ),
            )
        };
        match self {
            Generator::Namespaced(guard) => match &guard.0 {
                Ok(generator) => Ok(&generator.spec),
                Err(broken) => Err(invalid(&broken.error)),
            },
            Generator::Cluster(guard) => match &guard.0 {
                Ok(generator) if generator.spec.kind != Kind::AccessToken.as_str() => {
                    let (kind, wanted) = (
                        UntrustedText::quoted(&generator.spec.kind),
                        Kind::AccessToken.as_str(),
                    );
                    Err(invalid(&format!("its spec.kind is {kind}, not {wanted:?}")))
                }
                Ok(generator) => {
                    check_allowed(&generator.metadata, reference, pods)?;
                    let spec = generator.spec.generator.acr_access_token_spec.as_ref();
                    spec.ok_or_else(|| invalid("spec.generator.acrAccessTokenSpec is missing"))
                }
                Err(broken) => Err(invalid(&broken.error)),
            },
        }
    }
}

/// A ClusterGenerator is for all namespaces unless its annotation names some.
fn check_allowed(metadata: &ObjectMeta, reference: Reference<'_>, pods: &str) -> Result<(), Problem> {
    let annotations = metadata.annotations.as_ref();
    let Some(list) = annotations.and_then(|all| all.get(ALLOWED_NAMESPACES)) else {
        return Ok(());
    };
    let annotate = format_args!("kubectl annotate clustergenerator --overwrite {}", reference.name);
    namespaces::check_allowed(list, pods, annotate)
        .map_err(|why| Problem::new(Reason::CrossNamespaceNotAllowed, format!("{reference} {why}")))
}

// === impl ServiceAccounts ===

impl ServiceAccounts {
    /// Starts the watch; `annotations` are the keys to keep.
    pub fn watch(cluster: &Cluster, annotations: &'static [&'static str], epoch: &Epoch) -> Self {
        let epoch = epoch.clone();
        let trim = move |account: &mut PartialObjectMeta<ServiceAccount>| {
            let ObjectMeta {
                name,
                namespace,
                resource_version,
                annotations: all,
                ..
            } = std::mem::take(&mut account.metadata);
            account.metadata = ObjectMeta {
                name,
                namespace,
                resource_version,
                annotations: all.map(|mut all| {
                    all.retain(|key, _| annotations.contains(&key.as_str()));
                    all
                }),
                ..ObjectMeta::default()
            };
        };
        Self {
            store: watch::store(
                "watch of ServiceAccounts",
                cluster,
                cluster.watch_scopes(),
                Selector::default(),
                trim,
                move |_| epoch.turn(),
            ),
            client: cluster.client.clone(),
        }
    }

    /// The service account's annotations, from the watch alone.
    pub fn known(&self, namespace: &str, name: &str) -> Option<ServiceAccountView> {
        let found = self.store.get(&ObjectRef::new(name).within(namespace))?;
        Some(found.meta().annotations.clone().unwrap_or_default())
    }

    /// The same from the API server.
    pub async fn fetch(&self, namespace: &str, name: &str) -> Result<ServiceAccountView, Problem> {
        let what = format!("reading service account {namespace}/{name}");
        let api = Api::<Item<PartialObjectMeta<ServiceAccount>>>::namespaced(self.client.clone(), namespace);
        match watch::get_object(&api, name).await {
            Ok(Some(found)) => Ok(found.meta().annotations.clone().unwrap_or_default()),
            Ok(None) => Err(Problem::new(
                Reason::ServiceAccountNotFound,
                format!(
                    "service account {name:?} does not exist in namespace {namespace}; create it, or correct the name"
                ),
            )),
            Err(CallError::TooLarge(bytes)) => Err(Problem::new(
                Reason::IdentityInvalid,
                format!(
                    "service account {namespace}/{name} has more than {bytes} bytes of metadata; remove what is not needed"
                ),
            )),
            Err(error) => Err(api_problem(&what, error)),
        }
    }
}
