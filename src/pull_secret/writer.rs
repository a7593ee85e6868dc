//! Writes `ACRPullSecret`s and Secrets without the right to read a Secret.
//!
//! A Secret is created, and afterwards replaced by a PUT with the uid that its creation returned. It is never patched:
//! the right to patch is a right to read, because an error message of the API server quotes a value that a JSON patch
//! copies into a field where it is invalid, before any policy is evaluated. Where the uid is not known, a
//! ValidatingAdmissionPolicy (deploy/) protects Secrets of others.
//!
//! The Secret and the status are two writes; `pair` keeps them consistent.

use super::{
    ACRPullSecret, ACRPullSecretStatus, PullSecretPlan, docker_config::docker_config,
    extra_metadata::ExtraMetadata,
};
use crate::{
    kubernetes::{self, CallError, api_problem},
    names::NamespacedName,
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
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{PartialObjectMeta, Status, response::StatusCause},
};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

const SECRET_TYPE: &str = "kubernetes.io/dockerconfigjson";
/// Part of the message of the policy acr-pull-webhook-secrets.
const FOREIGN_SECRET_MESSAGE: &str = "belongs to somebody else";
/// Part of the message of the admission plugin OwnerReferencesPermissionEnforcement, which OpenShift enables. The webhook has
/// no permission to delete Secrets.
const OWNER_CHANGE_MESSAGE: &str = "cannot set an ownerRef on a resource you can't delete";
/// Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>.
const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Writes to the API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    extra: Arc<ExtraMetadata>,
}

impl Writer {
    /// A writer over this client, which adds these labels and annotations to what it writes.
    pub fn new(client: Client, extra: ExtraMetadata) -> Self {
        Self {
            client,
            extra: Arc::new(extra),
        }
    }

    /// Whether the `ACRPullSecret` has the spec of the plan, and was written with the labels and annotations of this
    /// writer.
    pub fn is_up_to_date(&self, owner: &ACRPullSecret, plan: &PullSecretPlan) -> bool {
        owner.spec == plan.spec() && self.extra.is_current(owner.metadata.annotations.as_ref())
    }

    /// Creates the `ACRPullSecret`, or brings its spec up to date.
    pub async fn apply_owner(&self, plan: &PullSecretPlan) -> Result<ACRPullSecret, Problem> {
        let what = format!("writing ACRPullSecret {}", plan.key());
        let mut owner = ACRPullSecret::new(plan.name(), plan.spec());
        owner.metadata.labels = Some(self.extra.labels());
        owner.metadata.annotations = self.extra.owner_annotations();
        let api = Api::<ACRPullSecret>::namespaced(self.client.clone(), plan.namespace());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        kubernetes::call(&what, api.patch(plan.name(), &params, &Patch::Apply(&owner))).await
    }

    /// The `ACRPullSecret` as the API server has it.
    pub async fn live(&self, key: &NamespacedName) -> Result<Option<ACRPullSecret>, Problem> {
        let what = format!("reading ACRPullSecret {key}");
        let api = Api::<ACRPullSecret>::namespaced(self.client.clone(), &key.namespace);
        kubernetes::call(&what, api.get_opt(&key.name)).await
    }

    /// The object as the API server has it, if it has the same uid.
    pub async fn live_with_same_uid(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
    ) -> Result<ACRPullSecret, Problem> {
        match self.live(key).await? {
            Some(live) if live.metadata.uid == owner.metadata.uid => Ok(live),
            _ => Err(owner_deleted(key)),
        }
    }

    /// Replaces the Secret if it still exists in the known version.
    pub async fn replace_known(
        &self,
        owner: &ACRPullSecret,
        plan: &PullSecretPlan,
        token: &PullToken,
        known: &Version,
    ) -> Result<Version, ReplaceError> {
        let mut secret = self.secret(owner, plan, token);
        secret.metadata.uid = Some(known.uid.clone());
        secret.metadata.resource_version = known.resource_version.clone();
        match self.replace(plan, &secret).await {
            Ok(written) => Ok(written),
            Err(CallError::Api(s)) if s.code == 404 || s.code == 409 => Err(ReplaceError::Changed),
            Err(error) => Err(ReplaceError::Failed(secret_problem(plan, error))),
        }
    }

    /// Creates the Secret, or replaces an existing pull secret of that name.
    pub async fn create_or_replace(
        &self,
        owner: &ACRPullSecret,
        plan: &PullSecretPlan,
        token: &PullToken,
    ) -> Result<Version, Problem> {
        let secret = self.secret(owner, plan, token);
        let written = match self.create(plan, &secret).await {
            // The policy decides whether the existing Secret may be replaced. A Secret of a deleted owner would be
            // deleted with it, so the owner must still exist.
            Err(CallError::Api(s)) if s.code == 409 => {
                self.live_with_same_uid(plan.key(), owner).await?;
                self.replace(plan, &secret).await
            }
            other => other,
        };
        written.map_err(|e| secret_problem(plan, e))
    }

    fn secret(&self, owner: &ACRPullSecret, plan: &PullSecretPlan, token: &PullToken) -> Secret {
        let config = docker_config(&plan.inputs.registry, &token.secret);
        let config = ByteString(config.expose_secret().as_bytes().to_vec());
        Secret {
            metadata: ObjectMeta {
                name: Some(plan.name().to_string()),
                labels: Some(self.extra.labels()),
                annotations: self.extra.annotations(),
                owner_references: Some(vec![owner_reference(owner)]),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(BTreeMap::from([(".dockerconfigjson".to_owned(), config)])),
            ..Secret::default()
        }
    }

    async fn create(&self, plan: &PullSecretPlan, secret: &Secret) -> Result<Version, CallError> {
        self.send(plan, secret, |request, params, body| request.create(params, body))
            .await
    }

    async fn replace(&self, plan: &PullSecretPlan, secret: &Secret) -> Result<Version, CallError> {
        self.send(plan, secret, |request, params, body| {
            request.replace(plan.name(), params, body)
        })
        .await
    }

    /// Asks for metadata only, so that no response holds a token.
    async fn send(
        &self,
        plan: &PullSecretPlan,
        secret: &Secret,
        write: impl FnOnce(
            &kube::core::Request,
            &PostParams,
            Vec<u8>,
        ) -> Result<http::Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<Version, CallError> {
        let url = Secret::url_path(&(), Some(plan.namespace()));
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let call = async {
            let body = serde_json::to_vec(secret).map_err(kube::Error::SerdeError)?;
            let mut request =
                write(&kube::core::Request::new(url), &params, body).map_err(kube::Error::BuildRequest)?;
            request.headers_mut().insert(http::header::ACCEPT, METADATA_ONLY);
            self.client.request::<PartialObjectMeta<Secret>>(request).await
        };
        let written = kubernetes::try_call("writing a Secret", call).await?;
        Ok(Version {
            uid: written.metadata.uid.unwrap_or_default(),
            resource_version: written.metadata.resource_version,
        })
    }

    /// Marks the pull secret as unused since this time, which announces its deletion.
    pub async fn mark_unused(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        since: Timestamp,
    ) -> Result<(), Problem> {
        self.patch_unused(key, owner, json!(Time(since))).await.map(drop)
    }

    /// Takes the mark back because a Pod needs the pull secret. This also changes the resource version, which a
    /// deletion requires. Returns whether the object still exists as it is known.
    pub async fn mark_used(&self, key: &NamespacedName, owner: &ACRPullSecret) -> Result<bool, Problem> {
        self.patch_unused(key, owner, json!(null)).await
    }

    async fn patch_unused(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        since: Value,
    ) -> Result<bool, Problem> {
        let what = format!("marking ACRPullSecret {key}");
        let api = Api::<ACRPullSecret>::namespaced(self.client.clone(), &key.namespace);
        // The uid binds the mark to this object: a recreated object has its own.
        let body = json!({"metadata": {"uid": owner.metadata.uid}, "status": {"unusedSince": since}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(&body));
        match kubernetes::try_call(&what, api.patch_status(&key.name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(CallError::Api(s)) if s.code == 404 || s.code == 409 => Ok(false),
            Err(error) => Err(api_problem(&what, error)),
        }
    }

    /// Deletes the pull secret if it still exists as it is known; the garbage collector deletes its Secret. Returns
    /// whether it is deleted.
    pub async fn delete_as_known(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
    ) -> Result<bool, Problem> {
        let what = format!("deleting ACRPullSecret {key}");
        let api = Api::<ACRPullSecret>::namespaced(self.client.clone(), &key.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: owner.metadata.uid.clone(),
                resource_version: owner.metadata.resource_version.clone(),
            }),
            ..DeleteParams::default()
        };
        match kubernetes::try_call(&what, api.delete(&key.name, &params)).await {
            Ok(_) => Ok(true),
            Err(CallError::Api(s)) if s.code == 404 => Ok(true),
            Err(CallError::Api(s)) if s.code == 409 => Ok(false),
            Err(error) => Err(api_problem(&what, error)),
        }
    }

    /// Writes the status if the object still exists as it is known. Returns whether it did.
    pub async fn apply_status(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        status: &ACRPullSecretStatus,
    ) -> Result<bool, Problem> {
        let what = format!("writing the status of ACRPullSecret {key}");
        let api = Api::<ACRPullSecret>::namespaced(self.client.clone(), &key.namespace);
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
        match kubernetes::try_call(&what, api.patch_status(&key.name, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(CallError::Api(s)) if s.code == 404 || s.code == 409 => Ok(false),
            Err(error) => Err(api_problem(&what, error)),
        }
    }
}

/// The version of a Secret that a write returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The uid of the Secret.
    pub uid: String,
    /// Its resource version, which changes with each write.
    pub resource_version: Option<String>,
}

/// Why a Secret was not replaced.
pub enum ReplaceError {
    /// The Secret does not exist in the known version any more.
    Changed,
    /// Any other failure.
    Failed(Problem),
}

/// The owner was deleted, and the garbage collector deletes its Secret.
pub fn owner_deleted(key: &NamespacedName) -> Problem {
    Problem::new(
        Reason::ApiServerUnavailable,
        format!("ACRPullSecret {key} was deleted while its token was fetched: try again"),
    )
}

/// Without `blockOwnerDeletion`, which would need a right to the owner's finalizers.
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

fn secret_problem(plan: &PullSecretPlan, error: CallError) -> Problem {
    let (namespace, name) = (plan.namespace(), plan.name());
    let delete = format!("kubectl delete secret --namespace {namespace} {name}");
    match error {
        CallError::Api(s) if s.code == 403 && s.message.contains(OWNER_CHANGE_MESSAGE) => Problem::new(
            Reason::SecretConflict,
            format!(
                "Secret {namespace}/{name} lost its owner, and OwnerReferencesPermissionEnforcement permits no new one: delete it"
            ),
        )
        .command(delete),
        CallError::Api(s) if is_foreign(&s) => Problem::new(
            Reason::SecretConflict,
            format!(
                "Secret {namespace}/{name} already exists and is not a pull Secret: delete it if it is not needed"
            ),
        )
        .command(delete),
        other => api_problem(&format!("writing Secret {}", plan.key()), other),
    }
}

/// Whether the API server refused the write because the existing Secret is not a pull secret: by the policy, or because
/// a field differs that cannot change.
fn is_foreign(status: &Status) -> bool {
    match status.code {
        403 => status.message.contains(FOREIGN_SECRET_MESSAGE),
        422 => {
            let causes = status.details.iter().flat_map(|d| &d.causes);
            let unchangeable =
                |cause: &StatusCause| ["type", "data", "immutable"].contains(&cause.field.as_str());
            causes.into_iter().any(unchangeable)
        }
        _ => false,
    }
}
