//! The watched generators and service accounts of the cluster. An object that a watch does not show yet can be read
//! from the API server.

use super::{
    ACRAccessToken, ACRAccessTokenSpec, ClusterGenerator, Revision,
    namespaces::{self, ALLOWED_NAMESPACES},
};
use crate::{
    cluster::{Cluster, WatchScopes, cluster_wide},
    kubernetes::{CallError, api_problem},
    names::{NamespaceName, NamespacedName},
    problem::{Problem, Reason},
    reference::{Kind, Reference},
    untrusted::UntrustedText,
    watch::{self, Item, Selector, Watched, WatchedStore},
};
use k8s_openapi::{
    api::core::v1::{ObjectReference, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, Resource, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, sync::Arc};

/// The watched generators of both kinds. An invalid generator is stored with its error, so that it is refused by name
/// and does not stop the watch of the others.
#[derive(Clone)]
pub struct Generators {
    client: Client,
    namespaced: WatchedStore<ACRAccessToken>,
    /// `None` if only some namespaces are served.
    cluster: Option<WatchedStore<ClusterGenerator>>,
}

impl Generators {
    /// Starts the watches.
    pub fn watch(cluster: &Cluster, revision: &Revision) -> Self {
        let watch_cluster_generators = || {
            let scopes = cluster_wide(Api::all(cluster.client.clone()));
            watch_generators("watch of ClusterGenerators", cluster, scopes, revision)
        };
        Self {
            namespaced: watch_generators(
                "watch of ACRAccessTokens",
                cluster,
                cluster.watch_scopes(),
                revision,
            ),
            cluster: cluster
                .namespaces
                .is_cluster_wide()
                .then(watch_cluster_generators),
            client: cluster.client.clone(),
        }
    }

    /// The generator, as the watch shows it.
    pub fn cached(&self, namespace: &NamespaceName, reference: &Reference) -> Option<Generator> {
        match reference.kind {
            Kind::AccessToken => {
                let object = ObjectRef::new(&reference.name).within(namespace);
                self.namespaced.get(&object).map(Generator::Namespaced)
            }
            Kind::ClusterGenerator => {
                let object = ObjectRef::new(&reference.name);
                self.cluster.as_ref()?.get(&object).map(Generator::Cluster)
            }
        }
    }

    /// The generator, as the API server has it: it may have been created just before the Pod.
    pub async fn fetch(
        &self,
        namespace: &NamespaceName,
        reference: &Reference,
    ) -> Result<Generator, Problem> {
        let is_cluster_wide = self.cluster.is_some();
        let found = fetch_generator(&self.client, is_cluster_wide, namespace, reference).await;
        found.map_err(|problem| self.with_cluster_generator(problem, reference))
    }

    /// Mentions the ClusterGenerator of the same name, which a person who writes the name alone may mean.
    fn with_cluster_generator(&self, problem: Problem, reference: &Reference) -> Problem {
        let name = &reference.name;
        let object = ObjectRef::new(name);
        let exists = self
            .cluster
            .as_ref()
            .is_some_and(|store| store.get(&object).is_some());
        let is_missing = problem.reason == Reason::GeneratorNotFound && reference.kind == Kind::AccessToken;
        if !(is_missing && exists) {
            return problem;
        }
        let fact = format!(
            "no ACRAccessToken {name:?} exists here, but a ClusterGenerator: write ClusterGenerator/{name}"
        );
        Problem::new(Reason::GeneratorNotFound, fact)
    }
}

/// The generator, as the API server has it. If only some namespaces are served, there are no ClusterGenerators.
pub async fn fetch_generator(
    client: &Client,
    is_cluster_wide: bool,
    namespace: &NamespaceName,
    reference: &Reference,
) -> Result<Generator, Problem> {
    match reference.kind {
        Kind::AccessToken => {
            let api = Api::namespaced(client.clone(), namespace);
            let location = format!("in namespace {namespace}");
            fetch(&api, reference, &location)
                .await
                .map(Arc::new)
                .map(Generator::Namespaced)
        }
        Kind::ClusterGenerator if !is_cluster_wide => Err(Problem::new(
            Reason::GeneratorNotFound,
            format!(
                "{reference} cannot be used with --namespaces: reference an ACRAccessToken in namespace {namespace}"
            ),
        )),
        Kind::ClusterGenerator => {
            let api = Api::all(client.clone());
            fetch(&api, reference, "in the cluster")
                .await
                .map(Arc::new)
                .map(Generator::Cluster)
        }
    }
}

fn watch_generators<K: Watched>(
    what: &'static str,
    cluster: &Cluster,
    scopes: WatchScopes<Item<K>>,
    revision: &Revision,
) -> WatchedStore<K> {
    let trim = |generator: &mut K| {
        if let Some(annotations) = &mut generator.meta_mut().annotations {
            annotations.retain(|key, _| key == ALLOWED_NAMESPACES);
        }
    };
    let revision = revision.clone();
    watch::store(what, cluster, scopes, Selector::default(), trim, move |_| {
        revision.bump()
    })
}

async fn fetch<K: Watched>(
    api: &Api<Item<K>>,
    reference: &Reference,
    location: &str,
) -> Result<Item<K>, Problem> {
    let what = format!("reading {reference} {location}");
    match watch::get_object(api, &reference.name).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Problem::new(
            Reason::GeneratorNotFound,
            format!(
                "no {} {:?} exists {location}: create it, or correct the name",
                reference.kind.as_str(),
                reference.name
            ),
        )),
        Err(CallError::Api(status)) if status.code == 404 => Err(Problem::new(
            Reason::CrdNotInstalled,
            format!(
                "the kind {} is not installed: install CustomResourceDefinition {}.{}",
                K::kind(&()),
                K::plural(&()),
                K::group(&())
            ),
        )),
        Err(CallError::TooLarge(bytes)) => Err(Problem::new(
            Reason::GeneratorInvalid,
            format!("{reference} cannot be used: it has more than {bytes} bytes of JSON"),
        )),
        Err(error) => Err(api_problem(&what, error)),
    }
}

impl Watched for ACRAccessToken {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::decode(deserializer, |metadata, SpecOnly { spec }| Self {
            metadata,
            spec,
        })
    }
}

impl Watched for ClusterGenerator {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::decode(deserializer, |metadata, SpecOnly { spec }| Self {
            metadata,
            spec,
        })
    }
}

/// The fields of a generator besides its metadata.
#[derive(Deserialize)]
struct SpecOnly<S> {
    spec: S,
}

/// A generator that exists, valid or invalid.
pub enum Generator {
    /// A generator in the namespace of the Pod.
    Namespaced(Arc<Item<ACRAccessToken>>),
    /// A generator for all namespaces.
    Cluster(Arc<Item<ClusterGenerator>>),
}

impl Generator {
    /// The reference to the generator in Events.
    pub fn object_reference(&self) -> ObjectReference {
        match self {
            Generator::Namespaced(object) => object.object_ref(&()),
            Generator::Cluster(object) => object.object_ref(&()),
        }
    }

    /// The spec of an `ACRAccessToken` for Pods of a namespace, or the reason why these Pods cannot use the generator.
    pub fn spec(&self, reference: &Reference, pod_namespace: &str) -> Result<&ACRAccessTokenSpec, Problem> {
        let invalid = |why: &str| {
            Problem::new(
                Reason::GeneratorInvalid,
                format!("{reference} cannot be used: correct its spec"),
            )
            .quoting(why)
            .command(explain(reference))
        };
        match self {
            Generator::Namespaced(item) => match &item.0 {
                Ok(generator) => Ok(&generator.spec),
                Err(broken) => Err(invalid(&broken.error)),
            },
            Generator::Cluster(item) => match &item.0 {
                Ok(generator) if generator.spec.kind != Kind::AccessToken.as_str() => {
                    let kind = UntrustedText::quoted(&generator.spec.kind);
                    let supported = Kind::AccessToken.as_str();
                    Err(invalid(&format!("its spec.kind is {kind}, not {supported:?}")))
                }
                Ok(generator) => {
                    check_allowed(&generator.metadata, reference, pod_namespace)?;
                    let spec = generator.spec.generator.acr_access_token_spec.as_ref();
                    spec.ok_or_else(|| invalid("spec.generator.acrAccessTokenSpec is missing"))
                }
                Err(broken) => Err(invalid(&broken.error)),
            },
        }
    }
}

/// The command that lists the fields of a generator and their permitted values.
fn explain(reference: &Reference) -> &'static str {
    match reference.kind {
        Kind::AccessToken => "kubectl explain acraccesstoken.spec --recursive",
        Kind::ClusterGenerator => {
            "kubectl explain clustergenerator.spec.generator.acrAccessTokenSpec --recursive"
        }
    }
}

/// Checks that Pods of a namespace may use a ClusterGenerator. Without the annotation, all namespaces may use it.
fn check_allowed(metadata: &ObjectMeta, reference: &Reference, pod_namespace: &str) -> Result<(), Problem> {
    let annotations = metadata.annotations.as_ref();
    let Some(list) = annotations.and_then(|all| all.get(ALLOWED_NAMESPACES)) else {
        return Ok(());
    };
    let annotate_command = format_args!("kubectl annotate clustergenerator --overwrite {}", reference.name);
    namespaces::check_allowed(list, pod_namespace, annotate_command).map_err(|advice| Problem {
        command: advice.command,
        ..Problem::new(
            Reason::CrossNamespaceNotAllowed,
            format!("{reference} {}", advice.hint),
        )
    })
}

/// The annotations of a service account that the webhook reads.
pub type ServiceAccountAnnotations = BTreeMap<String, String>;

/// The watched service accounts of the cluster. Only the annotations that the webhook reads are kept.
#[derive(Clone)]
pub struct ServiceAccounts {
    client: Client,
    store: WatchedStore<PartialObjectMeta<ServiceAccount>>,
}

impl ServiceAccounts {
    /// Starts the watch. `annotations` are the keys to keep.
    pub fn watch(cluster: &Cluster, annotations: &'static [&'static str], revision: &Revision) -> Self {
        let revision = revision.clone();
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
                move |_| revision.bump(),
            ),
            client: cluster.client.clone(),
        }
    }

    /// The annotations of the service account, as the watch shows them.
    pub fn cached(&self, account: &NamespacedName) -> Option<ServiceAccountAnnotations> {
        let found = self.store.get(&account.reference())?;
        Some(found.meta().annotations.clone().unwrap_or_default())
    }

    /// The annotations of the service account, as the API server has them.
    pub async fn fetch(&self, account: &NamespacedName) -> Result<ServiceAccountAnnotations, Problem> {
        fetch_annotations(&self.client, account).await
    }
}

/// The annotations of a service account, as the API server has them.
pub async fn fetch_annotations(
    client: &Client,
    account: &NamespacedName,
) -> Result<ServiceAccountAnnotations, Problem> {
    let NamespacedName { namespace, name } = account;
    let what = format!("reading service account {account}");
    let api = Api::<Item<PartialObjectMeta<ServiceAccount>>>::namespaced(client.clone(), namespace);
    match watch::get_object(&api, name).await {
        Ok(Some(found)) => Ok(found.meta().annotations.clone().unwrap_or_default()),
        Ok(None) => Err(Problem::new(
            Reason::ServiceAccountNotFound,
            format!("service account {name:?} does not exist in namespace {namespace}: create it, or correct the name"),
        )
        .command(format!("kubectl create serviceaccount --namespace {namespace} {name}"))),
        Err(CallError::TooLarge(bytes)) => Err(Problem::new(
            Reason::IdentityInvalid,
            format!("service account {account} has more than {bytes} bytes of metadata: remove labels and annotations"),
        )),
        Err(error) => Err(api_problem(&what, error)),
    }
}
