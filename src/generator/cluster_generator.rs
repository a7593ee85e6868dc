//! The `ClusterGenerator` kind of External Secrets Operator: a generator for all namespaces.
//! Source: <https://external-secrets.io/latest/api/generator/cluster/>.

use super::{ACRAccessTokenSpec, bounded};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A generator that can be used from every namespace. Only generators of kind ACRAccessToken are used.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "generators.external-secrets.io",
    version = "v1alpha1",
    kind = "ClusterGenerator",
    category = "external-secrets",
    category = "external-secrets-generators",
    doc = "ClusterGenerator is a generator that can be used from every namespace. acr-pull-webhook uses generators of kind ACRAccessToken; External Secrets Operator uses all kinds."
)]
pub struct ClusterGeneratorSpec {
    /// The kind of the generator, such as ACRAccessToken.
    #[serde(deserialize_with = "bounded::required::<_, 63>")]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// The generator's spec, in the field for its kind.
    pub generator: GeneratorSpec,
}

/// The generator's spec, in the field for its kind.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-preserve-unknown-fields" = true, "minProperties" = 1, "maxProperties" = 1))]
pub struct GeneratorSpec {
    /// The spec of an ACRAccessToken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr_access_token_spec: Option<ACRAccessTokenSpec>,
}
