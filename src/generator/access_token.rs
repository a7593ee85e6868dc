//! The `ACRAccessToken` kind, field for field External Secrets Operator's own.
//! Source: <https://external-secrets.io/latest/api/generator/acr/>.

use super::bounded;
use crate::registry::{MAX_HOST_LENGTH, MAX_SCOPE_LENGTH};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest name of an object or of a key, and the longest id of a tenant.
pub const MAX_NAME: usize = 253;
/// The longest id of a managed identity: that of a resource has the names of a subscription, a group and an identity in it.
pub const MAX_IDENTITY_ID: usize = 512;
/// The most audiences, and the longest.
pub const MAX_AUDIENCES: usize = 8;
/// The longest audience.
pub const MAX_AUDIENCE: usize = 512;

/// How to get a token for an Azure Container Registry.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "generators.external-secrets.io",
    version = "v1alpha1",
    kind = "ACRAccessToken",
    namespaced,
    category = "external-secrets",
    category = "external-secrets-generators",
    doc = "ACRAccessToken says how to get a token for an Azure Container Registry: which registry, which identity, which scope."
)]
#[serde(rename_all = "camelCase")]
pub struct ACRAccessTokenSpec {
    /// The identity that asks for the token. With several set, the order is servicePrincipal, managedIdentity, workloadIdentity.
    pub auth: Auth,
    /// The Entra tenant id. A service account's own annotation comes first.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME>"
    )]
    #[schemars(length(max = 253))]
    pub tenant_id: Option<String>,
    /// The registry's login server, such as contoso.azurecr.io.
    #[serde(deserialize_with = "bounded::text::<_, MAX_HOST_LENGTH>")]
    #[schemars(length(max = 253))]
    pub registry: String,
    /// What the token opens, such as repository:team/app:pull; several are separated by blanks, wildcards are not available. Without it the token opens what the identity may open.
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

/// The identity that asks for the token.
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
    /// Where the client id and the client secret are kept.
    pub secret_ref: ServicePrincipalSecretRef,
}

/// Where the client id and the client secret are kept.
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
        deserialize_with = "bounded::optional::<_, MAX_NAME>"
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
        deserialize_with = "bounded::optional::<_, MAX_NAME>"
    )]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: Option<String>,
    /// The namespace of the Secret; only a ClusterGenerator may name one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME>"
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
    /// The client id or resource id of a user-assigned identity; without it, the system-assigned one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_IDENTITY_ID>"
    )]
    #[schemars(length(max = 512))]
    pub identity_id: Option<String>,
}

/// A Kubernetes service account that Entra trusts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadIdentityAuth {
    /// The service account; without it, the Pod's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_ref: Option<ServiceAccountRef>,
}

/// A service account.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub struct ServiceAccountRef {
    /// The name of the service account.
    #[serde(deserialize_with = "bounded::text::<_, MAX_NAME>")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub name: String,
    /// The namespace of the service account; only a ClusterGenerator may name another one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "bounded::optional::<_, MAX_NAME>"
    )]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub namespace: Option<String>,
    /// Audiences of the assertion beside the default one.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "bounded::list::<_, MAX_AUDIENCES, MAX_AUDIENCE>"
    )]
    #[schemars(length(max = 8), inner(length(max = 512)))]
    pub audiences: Vec<String>,
}

/// The Azure cloud.
#[expect(clippy::enum_variant_names, reason = "the names are the API's")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum EnvironmentType {
    /// The public cloud.
    #[default]
    PublicCloud,
    /// Azure Government.
    USGovernmentCloud,
    /// Azure operated by 21Vianet.
    ChinaCloud,
    /// Azure Germany, closed in 2021.
    GermanCloud,
    /// Azure Stack Hub.
    AzureStackCloud,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_a_later_version_are_read_over() {
        let spec = json!({"registry": "contoso.azurecr.io", "retry": {"times": 3}, "auth": {
            "somethingNew": {}, "workloadIdentity": {"hint": "x", "serviceAccountRef": {"name": "app", "more": 1}}}});
        let spec: ACRAccessTokenSpec = serde_json::from_value(spec).unwrap();
        assert!(spec.auth.workload_identity.unwrap().service_account_ref.is_some());
    }
}
