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

/// The kinds as one YAML stream: our own, and unless they are left out, the generators'.
pub fn yaml(without_generators: bool) -> Result<String, String> {
    let generators = if without_generators {
        Vec::new()
    } else {
        generators()
    };
    let mut text = String::new();
    for crd in own().into_iter().chain(generators) {
        text.push_str("---\n");
        text.push_str(
            &serde_saphyr::to_string(&crd).map_err(|e| format!("a CRD cannot be written as YAML: {e}"))?,
        );
    }
    Ok(text)
}

/// Our own kind.
pub fn own() -> Vec<CustomResourceDefinition> {
    vec![ACRPullSecret::crd()]
}

/// The two kinds of External Secrets Operator.
pub fn generators() -> Vec<CustomResourceDefinition> {
    vec![
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
        for (folder, crds) in [("crds", own()), ("generators", generators())] {
            for crd in crds {
                let path = format!("deploy/kustomize/{folder}/{}.yaml", crd.spec.names.plural);
                let manifest = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(
                    manifest == serde_saphyr::to_string(&crd).unwrap(),
                    "{path} is not what the types say: run `make crds` and look at what changed"
                );
            }
        }
    }

    #[test]
    fn the_generators_can_be_left_out() {
        let kinds = |yaml: String| yaml.matches("kind: CustomResourceDefinition").count();
        assert_eq!((kinds(yaml(false).unwrap()), kinds(yaml(true).unwrap())), (3, 1));
        assert!(yaml(true).unwrap().contains("acrpullsecrets.acr-pull.dev"));
    }
}
