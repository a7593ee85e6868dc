//! What all measurements share: the flags of the webhook and the Pod of the reviews.

use k8s_openapi::api::core::v1::Pod;

/// The log level of production, and room for many identities in one namespace.
pub const FLAGS: [&str; 2] = ["--log-level=info", "--max-pull-secrets-per-namespace=1000000"];

/// The Pod of all measurements.
pub fn pod() -> Pod {
    serde_saphyr::from_str(include_str!("../pod.yaml")).expect("bench/pod.yaml is a Pod")
}
