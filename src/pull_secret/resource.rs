//! `ACRPullSecret`: the owner and the visible status of one pull secret.

use crate::{
    reference::Kind,
    watch::{self, Item, Watched},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

/// The reason of a Ready condition that is true.
pub const ISSUED: &str = "Issued";
/// The type of the condition that always exists.
pub const READY: &str = "Ready";
/// The type of the condition that exists while a working token could not be renewed.
pub const RENEWED: &str = "Renewed";

/// What one pull secret is made from.
#[derive(Clone, Debug, PartialEq, CustomResource, Deserialize, Serialize, KubeSchema)]
#[kube(
    group = "acr-pull.dev",
    version = "v1alpha1",
    kind = "ACRPullSecret",
    plural = "acrpullsecrets",
    shortname = "acrps",
    namespaced,
    status = "ACRPullSecretStatus",
    doc = "ACRPullSecret owns the image pull Secret of the same name and shows its state. acr-pull-webhook creates it when a Pod needs it; deleting it deletes the Secret.",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name":"Registry","type":"string","jsonPath":".status.registry"}"#,
    printcolumn = r#"{"name":"Identity","type":"string","jsonPath":".status.identity"}"#,
    printcolumn = r#"{"name":"Service Account","type":"string","jsonPath":".spec.serviceAccountName"}"#,
    printcolumn = r#"{"name":"Expires","type":"string","jsonPath":".status.expirationTime"}"#,
    printcolumn = r#"{"name":"Client ID","type":"string","jsonPath":".status.clientID","priority":1}"#,
    printcolumn = r#"{"name":"Scope","type":"string","jsonPath":".status.scope","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("self.metadata.name.startsWith('acr-pull-')").message("acr-pull-webhook creates ACRPullSecrets: annotate a Pod instead"),
)]
#[x_kube(
    validation = Rule::new("!has(self.serviceAccountNamespace) || has(self.serviceAccountName)").message("serviceAccountNamespace needs serviceAccountName"),
    validation = Rule::new("!has(self.serviceAccountOf) || has(self.serviceAccountName)").message("serviceAccountOf needs serviceAccountName"),
    validation = Rule::new("!has(self.serviceAccountNamespace) || self.generator.kind == 'ClusterGenerator'").message("only a ClusterGenerator uses a service account of another namespace"),
)]
#[serde(rename_all = "camelCase")]
pub struct ACRPullSecretSpec {
    /// The generator that the token comes from.
    #[x_kube(validation = Rule::new("self == oldSelf").message("the generator cannot change, because the name is derived from it"))]
    pub generator: GeneratorReference,
    /// The service account whose identity gets the token; absent for service principals and managed identities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
    /// The namespace of the service account, where it is not this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub service_account_namespace: Option<String>,
    /// Whose service account this is: Pod for the Pod's own, Generator for the one that the generator names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_of: Option<AccountOf>,
}

impl ACRPullSecret {
    /// The registry of the token, as the status names it.
    pub fn registry(&self) -> Option<&str> {
        self.status.as_ref()?.registry.as_deref()
    }

    /// The fingerprint of the inputs of the token.
    pub fn inputs_hash(&self) -> Option<&str> {
        self.status.as_ref()?.inputs_hash.as_deref()
    }

    /// When the token was issued.
    pub fn last_renewal(&self) -> Option<Timestamp> {
        Some(self.status.as_ref()?.last_renewal_time.as_ref()?.0)
    }

    /// A pull secret with this status, for tests.
    #[cfg(test)]
    pub fn example(status: Option<ACRPullSecretStatus>) -> Self {
        let generator = GeneratorReference {
            kind: StoredKind::Known(Kind::AccessToken),
            name: "contoso".to_owned(),
        };
        let spec = ACRPullSecretSpec {
            generator,
            service_account_name: None,
            service_account_namespace: None,
            service_account_of: None,
        };
        let mut object = Self::new("acr-pull-contoso", spec);
        object.status = status;
        object
    }

    /// Whether its deletion is announced because no Pod has named it for a while.
    pub fn is_marked_unused(&self) -> bool {
        self.status.as_ref().is_some_and(|s| s.unused_since.is_some())
    }
}

impl Watched for ACRPullSecret {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        #[derive(Deserialize)]
        struct Body {
            spec: ACRPullSecretSpec,
            status: Option<ACRPullSecretStatus>,
        }
        watch::decode(deserializer, |metadata, Body { spec, status }| Self {
            metadata,
            spec,
            status,
        })
    }
}

/// Whose service account a pull secret is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AccountOf {
    /// The service account of the Pods.
    Pod,
    /// The service account that the generator names.
    Generator,
}

/// A generator: an ACRAccessToken of this namespace, or a ClusterGenerator.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, KubeSchema)]
pub struct GeneratorReference {
    /// The kind: ACRAccessToken or ClusterGenerator.
    #[schemars(with = "String", length(max = 63))]
    #[x_kube(validation = Rule::new("self in ['ACRAccessToken', 'ClusterGenerator']").message("kind is ACRAccessToken or ClusterGenerator"))]
    pub kind: StoredKind,
    /// The name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The kind of the generator of a pull secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum StoredKind {
    /// A kind that this version supports.
    Known(Kind),
    /// The kind of another version: an object with it is kept, watched and collected, and its renewal is refused.
    Unknown(String),
}

/// The last observed state of one pull secret. It holds no credential.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ACRPullSecretStatus {
    /// Ready is True if the Secret holds a working token; otherwise its reason says why not. Renewed exists, and is False,
    /// while the token works and the last attempt to renew it has failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"], "maxItems" = 8))]
    pub conditions: Vec<Condition>,
    /// The registry that the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub registry: Option<String>,
    /// The scope of the token; absent if the token is for everything that the identity may pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub scope: Option<String>,
    /// The kind of identity that the token was issued to: WorkloadIdentity, ServicePrincipal or ManagedIdentity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub identity: Option<String>,
    /// The subject of the assertion; only for a workload identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub subject: Option<String>,
    /// The Entra application (client) id, where it is known.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub client_id: Option<String>,
    /// The Entra tenant id, where it is known.
    #[serde(default, rename = "tenantID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub tenant_id: Option<String>,
    /// When the token expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Time>,
    /// When the token was issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_renewal_time: Option<Time>,
    /// A fingerprint of everything that the token depends on. The token is replaced when the fingerprint changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub inputs_hash: Option<String>,
    /// Since when no Pod names the Secret. It is set for a while before the deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Time>,
    /// The uid of the Secret that was written.
    #[serde(default, rename = "secretUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_uid: Option<String>,
    /// The resource version of the Secret that was written. If the Secret has another one, somebody else has written it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub secret_resource_version: Option<String>,
}

impl ACRPullSecretStatus {
    /// Whether the Ready condition is True.
    pub fn is_ready(&self) -> bool {
        self.ready_condition().is_some_and(|c| c.status == "True")
    }

    /// The Ready condition.
    pub fn ready_condition(&self) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == READY)
    }

    /// Whether the last attempt failed.
    pub fn has_failed(&self) -> bool {
        self.conditions.iter().any(|c| c.status != "True")
    }

    /// Sets the Ready condition, and removes any other. The transition time changes only when the status does.
    pub fn set_ready(
        &mut self,
        ready: bool,
        reason: &str,
        message: &str,
        generation: Option<i64>,
        now: Time,
    ) {
        let status = if ready { "True" } else { "False" };
        self.conditions = vec![self.condition(READY, status, reason, message, generation, now)];
    }

    /// Sets the Renewed condition to False, and leaves the Ready condition unchanged.
    pub fn set_not_renewed(&mut self, reason: &str, message: &str, generation: Option<i64>, now: Time) {
        let condition = self.condition(RENEWED, "False", reason, message, generation, now);
        self.conditions.retain(|c| c.type_ == READY);
        self.conditions.push(condition);
    }

    fn condition(
        &self,
        type_: &str,
        status: &str,
        reason: &str,
        message: &str,
        generation: Option<i64>,
        now: Time,
    ) -> Condition {
        let before = self.conditions.iter().find(|c| c.type_ == type_);
        let since = before
            .filter(|c| c.status == status)
            .map_or(now, |c| c.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: generation,
            last_transition_time: since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_with_an_unknown_kind_of_generator_is_decoded_and_unchanged() {
        for (text, kind) in [
            ("ACRAccessToken", StoredKind::Known(Kind::AccessToken)),
            ("ClusterGenerator", StoredKind::Known(Kind::ClusterGenerator)),
            ("Tomorrow", StoredKind::Unknown("Tomorrow".to_owned())),
        ] {
            let generator = json!({"kind": text, "name": "contoso"});
            let object = json!({"metadata": {"name": "acr-pull-x"}, "spec": {"generator": generator}});
            let Item(Ok(object)) = serde_json::from_str::<Item<ACRPullSecret>>(&object.to_string()).unwrap()
            else {
                panic!("the object with kind {text} cannot be decoded")
            };
            assert_eq!(object.spec.generator.kind, kind);
            assert_eq!(serde_json::to_value(&object.spec.generator).unwrap(), generator);
        }
    }
}
