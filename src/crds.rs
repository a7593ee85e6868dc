//! The custom resource definitions, as YAML.

use crate::{
    generator::{ACRAccessToken, ClusterGenerator},
    pull_secret::ACRPullSecret,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceSubresourceStatus, CustomResourceSubresources,
};
use kube::CustomResourceExt;
use serde_json::json;

/// All kinds, as one YAML stream.
pub fn yaml() -> Result<String, String> {
    let mut text = String::new();
    for crd in all() {
        text.push_str("---\n");
        text.push_str(
            &serde_saphyr::to_string(&crd).map_err(|e| format!("a CRD cannot be written as YAML: {e}"))?,
        );
    }
    Ok(text)
}

/// Our own kind, and the two of External Secrets Operator.
pub fn all() -> [CustomResourceDefinition; 3] {
    [
        ACRPullSecret::crd(),
        with_status(ACRAccessToken::crd()),
        with_status(ClusterGenerator::crd()),
    ]
}

/// External Secrets Operator's kinds have a status, without a schema.
fn with_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        version.subresources = Some(CustomResourceSubresources {
            status: Some(CustomResourceSubresourceStatus(json!({}))),
            scale: None,
        });
    }
    crd
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifests_are_those_of_the_types() {
        for crd in all() {
            let path = format!("deploy/kustomize/crds/{}.yaml", crd.spec.names.plural);
            let manifest = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                manifest == serde_saphyr::to_string(&crd).unwrap(),
                "{path} is not what the types say: run `make crds` and look at what changed"
            );
        }
    }
}
