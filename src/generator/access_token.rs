//! The `ACRAccessToken` kind of External Secrets Operator, with the same fields.
//! Source: <https://external-secrets.io/latest/api/generator/acr/>.

use super::bounded;
use crate::{names::MAX_NAME_LENGTH, registry::MAX_SCOPE_LENGTH};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The maximum length of the id of a managed identity, in bytes. A resource id contains the names of a subscription, a
/// resource group and an identity.
pub const MAX_IDENTITY_ID_LENGTH: usize = 512;
/// The maximum number of audiences.
pub const MAX_AUDIENCES: usize = 8;
/// The maximum length of an audience, in bytes.
pub const MAX_AUDIENCE_LENGTH: usize = 512;

/// How to request a token for an Azure Container Registry.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "generators.external-secrets.io",
    version = "v1alpha1",
    kind = "ACRAccessToken",
    namespaced,
    category = "external-secrets",
    category = "external-secrets-generators",
    doc = "ACRAccessToken describes how to request a token for an Azure Container Registry: the registry, the identity and the scope."
)]
#[serde(rename_all = "camelCase")]
pub struct ACRAccessTokenSpec {
    /// The identity that requests the token. If several are set, the first of servicePrincipal, managedIdentity and workloadIdentity is used.
    pub auth: Auth,
    /// The Entra tenant id. An annotation of the service account takes precedence.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME_LENGTH>"
    )]
    #[schemars(length(max = 253))]
    pub tenant_id: Option<String>,
    /// The registry's login server, such as contoso.azurecr.io.
    #[serde(deserialize_with = "bounded::required::<_, MAX_NAME_LENGTH>")]
    #[schemars(length(max = 253))]
    pub registry: String,
    /// The scope of the token, such as repository:team/app:pull. Several scopes are separated by spaces; wildcards are not supported. Without a scope, the token covers everything that the identity may access.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_SCOPE_LENGTH>"
    )]
    #[schemars(length(max = 4096))]
    pub scope: Option<String>,
    /// The Azure cloud.
    #[serde(default)]
    pub environment_type: EnvironmentType,
}

/// The identity that requests the token.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// A service principal with a client secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_principal: Option<ServicePrincipalAuth>,
    /// A managed identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_identity: Option<ManagedIdentityAuth>,
    /// A Kubernetes service account that Entra trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload_identity: Option<WorkloadIdentityAuth>,
}

/// A service principal with a client secret.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePrincipalAuth {
    /// The Secret keys that hold the client id and the client secret.
    pub secret_ref: ServicePrincipalSecretRef,
}

/// The Secret keys that hold the client id and the client secret.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServicePrincipalSecretRef {
    /// The client id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<SecretKeySelector>,
    /// The client secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretKeySelector>,
}

/// A key of a Secret.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub struct SecretKeySelector {
    /// The name of the Secret.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME_LENGTH>"
    )]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: Option<String>,
    /// The key in the Secret.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME_LENGTH>"
    )]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
    /// The namespace of the Secret. Only a ClusterGenerator may reference another namespace.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME_LENGTH>"
    )]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
}

/// A managed identity.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedIdentityAuth {
    /// The client id or resource id of a user-assigned identity. Without it, the system-assigned identity is used.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_IDENTITY_ID_LENGTH>"
    )]
    #[schemars(length(max = 512))]
    pub identity_id: Option<String>,
}

/// A Kubernetes service account that Entra trusts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentityAuth {
    /// The service account. Without it, the service account of the Pod is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
}

/// A service account.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct ServiceAccountRef {
    /// The name of the service account.
    #[serde(deserialize_with = "bounded::required::<_, MAX_NAME_LENGTH>")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// The namespace of the service account. Only a ClusterGenerator may reference another namespace.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME_LENGTH>"
    )]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
    /// Audiences of the assertion, in addition to the default audience.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, MAX_AUDIENCES, MAX_AUDIENCE_LENGTH>"
    )]
    #[schemars(length(max = 8), inner(length(max = 512)))]
    pub audiences: Vec<String>,
}

/// The Azure cloud.
#[expect(clippy::enum_variant_names, reason = "the API defines the names")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum EnvironmentType {
    /// The public cloud.
    #[default]
    PublicCloud,
    /// Azure Government.
    USGovernmentCloud,
    /// Azure operated by 21Vianet.
    ChinaCloud,
    /// Azure Germany, which was closed in 2021.
    GermanCloud,
    /// Azure Stack Hub.
    AzureStackCloud,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn unknown_fields_are_ignored() {
        let spec = json!({"registry": "contoso.azurecr.io", "retry": {"times": 3}, "auth": {
            "somethingNew": {}, "workloadIdentity": {"hint": "x", "serviceAccountRef": {"name": "app", "more": 1}}}});
        let spec: ACRAccessTokenSpec = serde_json::from_value(spec).unwrap();
        assert!(spec.auth.workload_identity.unwrap().service_account_ref.is_some());
    }
}
