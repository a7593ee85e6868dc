//! Writes `ACRPullSecret`s and Secrets without the right to read a Secret.
//!
//! A Secret is created, and from then on replaced, bound to the uid that its creation told. Never patched: the right to
//! patch is a right to read, for the API server's messages quote what a JSON patch copies into a field where it is
//! invalid, before any policy is asked. Where the uid is not known, a policy of the API server's (deploy/) refuses what
//! belongs to somebody else.
//!
//! The Secret and the status that tells of it are two writes. What ties them together is in `pair`.

use super::{ACRPullSecret, ACRPullSecretStatus, Order, docker_config::docker_config};
use crate::{
    kubernetes::{self, CallError, api_problem},
    problem::{Problem, Reason},
    registry::PullToken,
    telemetry::FIELD_MANAGER,
};
use http::HeaderValue;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{PartialObjectMeta, Status, response::StatusCause},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The reason of a Ready condition that is true.
pub const ISSUED: &str = "Issued";
const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
/// Words of the policy acr-pull-webhook-secrets.
const NOT_OURS: &str = "belongs to somebody else";
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>.
const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Writes to the API server.
#[derive(Clone)]
pub struct Writer(Client);

/// A Secret as a write has left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The uid of the Secret.
    pub uid: String,
    /// Its resource version, which each write changes.
    pub resource_version: Option<String>,
}

/// Why a Secret was not written.
pub enum Unwritten {
    /// It is another one than was thought, or somebody has written it meanwhile.
    Changed,
    /// Something else.
    Failed(Problem),
}

// === impl Writer ===

impl Writer {
    /// A writer over this client.
    pub fn new(client: Client) -> Self {
        Self(client)
    }

    /// Creates the `ACRPullSecret`, or brings its spec up to date.
    pub async fn apply_owner(&self, order: &Order) -> Result<ACRPullSecret, Problem> {
        let what = format!("writing ACRPullSecret {}/{}", order.namespace, order.name);
        let mut owner = ACRPullSecret::new(&order.name, order.spec());
        owner.metadata.labels = Some(kubernetes::managed_by());
        let api = Api::<ACRPullSecret>::namespaced(self.0.clone(), &order.namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        kubernetes::call(&what, api.patch(&order.name, &params, &Patch::Apply(&owner))).await
    }

    /// The `ACRPullSecret` as the API server has it.
    pub async fn live(&self, order: &Order) -> Result<Option<ACRPullSecret>, Problem> {
        let what = format!("reading ACRPullSecret {}/{}", order.namespace, order.name);
        let api = Api::<ACRPullSecret>::namespaced(self.0.clone(), &order.namespace);
        kubernetes::call(&what, api.get_opt(&order.name)).await
    }

    /// Replaces the Secret, if it still is the one that is known.
    pub async fn replace_known(
        &self,
        owner: &ACRPullSecret,
        order: &Order,
        token: &PullToken,
        known: &Version,
    ) -> Result<Version, Unwritten> {
        let mut secret = secret(owner, order, token);
        secret.metadata.uid = Some(known.uid.clone());
        secret.metadata.resource_version = known.resource_version.clone();
        match self.replace(order, &secret).await {
            Ok(written) => Ok(written),
            Err(CallError::Api(s)) if s.code == 404 || s.code == 409 => Err(Unwritten::Changed),
            Err(error) => Err(Unwritten::Failed(secret_problem(order, error))),
        }
    }

    /// Creates the Secret, or replaces whatever is in its place and ours.
    pub async fn create_or_replace(
        &self,
        owner: &ACRPullSecret,
        order: &Order,
        token: &PullToken,
    ) -> Result<Version, Problem> {
        let secret = secret(owner, order, token);
        let written = match self.create(order, &secret).await {
            // Ours of an earlier life, or somebody else's. Or of a pull secret that has taken the place of this one: what names
            // an owner that is gone is deleted with it.
            Err(CallError::Api(s)) if s.code == 409 => {
                self.same(owner, order).await?;
                self.replace(order, &secret).await
            }
            other => other,
        };
        written.map_err(|e| secret_problem(order, e))
    }

    async fn create(&self, order: &Order, secret: &Secret) -> Result<Version, CallError> {
        self.send(order, secret, |request, params, body| {
            request.create(params, body)
        })
        .await
    }

    async fn replace(&self, order: &Order, secret: &Secret) -> Result<Version, CallError> {
        self.send(order, secret, |request, params, body| {
            request.replace(&order.name, params, body)
        })
        .await
    }

    /// Only the metadata comes back: the token has no business in an answer.
    async fn send(
        &self,
        order: &Order,
        secret: &Secret,
        write: impl FnOnce(
            &kube::core::Request,
            &PostParams,
            Vec<u8>,
        ) -> Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Version, CallError> {
        let url = Secret::url_path(&(), Some(&order.namespace));
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let call = async {
            let body = serde_json::to_vec(secret).map_err(kube::Error::SerdeError)?;
            let mut request =
                write(&kube::core::Request::new(url), &params, body).map_err(kube::Error::BuildRequest)?;
            request.headers_mut().insert(http::header::ACCEPT, METADATA_ONLY);
            self.0.request::<PartialObjectMeta<Secret>>(request).await
        };
        let written = kubernetes::bounded("writing a Secret", call).await?;
        Ok(Version {
            uid: written.metadata.uid.unwrap_or_default(),
            resource_version: written.metadata.resource_version,
        })
    }

    /// Marks the pull secret as unused since this time: it is about to be deleted.
    pub async fn mark_unused(&self, owner: &ACRPullSecret, since: Timestamp) -> Result<(), Problem> {
        self.patch_unused(owner, json!(Time(since))).await.map(drop)
    }

    /// Takes the mark back: a Pod needs it. Also moves the resource version, to which a deletion is bound. Whether the
    /// object was there as it is known.
    pub async fn mark_used(&self, owner: &ACRPullSecret) -> Result<bool, Problem> {
        self.patch_unused(owner, json!(null)).await
    }

    async fn patch_unused(&self, owner: &ACRPullSecret, since: Value) -> Result<bool, Problem> {
        let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
        let what = format!("marking ACRPullSecret {namespace}/{name}");
        let api = Api::<ACRPullSecret>::namespaced(self.0.clone(), &namespace);
        // Bound to this very object: one that was made anew has a mark of its own.
        let body = json!({"metadata": {"uid": owner.metadata.uid}, "status": {"unusedSince": since}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&body));
        match kubernetes::bounded(&what, api.patch_status(&name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(CallError::Api(s)) if s.code == 404 || s.code == 409 => Ok(false),
            Err(error) => Err(api_problem(&what, error)),
        }
    }

    /// Deletes the pull secret if it still is as we know it; its Secret follows by ownership. Whether it is gone.
    pub async fn delete_as_known(&self, owner: &ACRPullSecret) -> Result<bool, Problem> {
        let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
        let what = format!("deleting ACRPullSecret {namespace}/{name}");
        let api = Api::<ACRPullSecret>::namespaced(self.0.clone(), &namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: owner.metadata.uid.clone(),
                resource_version: owner.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match kubernetes::bounded(&what, api.delete(&name, &params)).await {
            Ok(_) => Ok(true),
            Err(CallError::Api(s)) if s.code == 404 => Ok(true),
            Err(CallError::Api(s)) if s.code == 409 => Ok(false),
            Err(error) => Err(api_problem(&what, error)),
        }
    }

    /// Writes the status of this very object as it is known; whether it still was so.
    pub async fn apply_status(
        &self,
        owner: &ACRPullSecret,
        status: &ACRPullSecretStatus,
    ) -> Result<bool, Problem> {
        let (namespace, name) = (owner.namespace().unwrap_or_default(), owner.name_any());
        let what = format!("writing the status of ACRPullSecret {namespace}/{name}");
        let api = Api::<ACRPullSecret>::namespaced(self.0.clone(), &namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let body = json!({
            "apiVersion": ACRPullSecret::api_version(&()),
            "kind": ACRPullSecret::kind(&()),
            "metadata": {
                "uid": owner.metadata.uid,
                "resourceVersion": owner.metadata.resource_version,
            },
            "status": status,
        });
        let patch = Patch::Apply(&body);
        match kubernetes::bounded(&what, api.patch_status(&name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(CallError::Api(s)) if s.code == 404 || s.code == 409 => Ok(false),
            Err(error) => Err(api_problem(&what, error)),
        }
    }
}

fn secret(owner: &ACRPullSecret, order: &Order, token: &PullToken) -> Secret {
    let config = docker_config(&order.inputs.registry, &token.secret);
    let config = ByteString(config.expose_secret().as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(order.name.clone()),
            labels: Some(kubernetes::managed_by()),
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), config)])),
        ..Secret::default()
    }
}

/// `blockOwnerDeletion` is left out: it would need a right on the owner's finalizers.
fn owner_reference(owner: &ACRPullSecret) -> OwnerReference {
    OwnerReference {
        api_version: ACRPullSecret::api_version(&()).into_owned(),
        kind: ACRPullSecret::kind(&()).into_owned(),
        name: owner.metadata.name.clone().unwrap_or_default(),
        uid: owner.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn secret_problem(order: &Order, error: CallError) -> Problem {
    let Order { namespace, name, .. } = order;
    match error {
        CallError::Api(s) if is_foreign(&s) => Problem::new(
            Reason::SecretConflict,
            format!(
                "Secret {name} in namespace {namespace} belongs to somebody else and was left as it is; \
                 delete it if nobody needs it: kubectl delete secret --namespace {namespace} {name}"
            ),
        ),
        other => api_problem(&format!("writing Secret {namespace}/{name}"), other),
    }
}

/// Whether the answer says that the object in place is not ours: the policy does, or it differs where a Secret cannot be
/// changed.
fn is_foreign(status: &Status) -> bool {
    match status.code {
        403 => status.message.contains(NOT_OURS),
        422 => {
            let causes = status.details.iter().flat_map(|d| &d.causes);
            let unchangeable =
                |cause: &StatusCause| ["type", "data", "immutable"].contains(&cause.field.as_str());
            causes.into_iter().any(unchangeable)
        }
        _ => false,
    }
}
