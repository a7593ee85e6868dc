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

/// The CRDs as one YAML stream: `ACRPullSecret` and, unless they are left out, the generators. The YAML is included
/// from the manifests, so that the program contains no code to generate it; a test compares the manifests with the
/// types.
pub fn yaml(without_generators: bool) -> String {
    let own = include_str!("../deploy/kustomize/crds/acrpullsecrets.yaml");
    let generators = [
        include_str!("../deploy/kustomize/generators/acraccesstokens.yaml"),
        include_str!("../deploy/kustomize/generators/clustergenerators.yaml"),
    ];
    let generators = generators.into_iter().filter(|_| !without_generators);
    [own]
        .into_iter()
        .chain(generators)
        .map(|crd| format!("---\n{crd}"))
        .collect()
}

/// The CRD of `ACRPullSecret`.
pub fn own() -> Vec<CustomResourceDefinition> {
    vec![with_label(ACRPullSecret::crd())]
}

/// The CRDs of the two generators, whose API is External Secrets Operator's.
pub fn generators() -> Vec<CustomResourceDefinition> {
    vec![
        with_label(with_status(ACRAccessToken::crd())),
        with_label(with_status(ClusterGenerator::crd())),
    ]
}

/// Adds the label by which `deploy/crds.sh` distinguishes these CRDs from those that External Secrets Operator
/// installed.
fn with_label(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let label = (
        "app.kubernetes.io/part-of".to_owned(),
        "acr-pull-webhook".to_owned(),
    );
    crd.metadata.labels.get_or_insert_default().extend([label]);
    crd
}

/// Adds the status subresource, which External Secrets Operator's CRDs have without a schema.
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
    use serde_json::Value;

    #[test]
    fn the_manifests_match_the_types_and_all_are_printed() {
        let mut printed = String::new();
        for (folder, crds) in [("crds", own()), ("generators", generators())] {
            for crd in crds {
                let path = format!("deploy/kustomize/{folder}/{}.yaml", crd.spec.names.plural);
                let manifest = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(
                    manifest == serde_saphyr::to_string(&crd).unwrap(),
                    "{path} does not match the types: run `make generate` and review the diff"
                );
                printed.push_str(&format!("---\n{manifest}"));
            }
        }
        assert_eq!(yaml(false), printed);
    }

    #[test]
    fn the_generators_can_be_left_out() {
        let kinds = |yaml: String| yaml.matches("kind: CustomResourceDefinition").count();
        assert_eq!((kinds(yaml(false)), kinds(yaml(true))), (3, 1));
        assert!(yaml(true).contains("acrpullsecrets.acr-pull.dev"));
    }

    /// The fields of External Secrets Operator's `ACRAccessToken` below `spec` and their types, from its API reference.
    /// `!` marks a required field.
    const OPERATOR_FIELDS: &[(&str, &str)] = &[
        ("auth", "object!"),
        ("auth.servicePrincipal", "object"),
        ("auth.servicePrincipal.secretRef", "object!"),
        ("auth.servicePrincipal.secretRef.clientId", "object"),
        ("auth.servicePrincipal.secretRef.clientId.name", "string"),
        ("auth.servicePrincipal.secretRef.clientId.key", "string"),
        ("auth.servicePrincipal.secretRef.clientId.namespace", "string"),
        ("auth.servicePrincipal.secretRef.clientSecret", "object"),
        ("auth.servicePrincipal.secretRef.clientSecret.name", "string"),
        ("auth.servicePrincipal.secretRef.clientSecret.key", "string"),
        ("auth.servicePrincipal.secretRef.clientSecret.namespace", "string"),
        ("auth.managedIdentity", "object"),
        ("auth.managedIdentity.identityId", "string"),
        ("auth.workloadIdentity", "object"),
        ("auth.workloadIdentity.serviceAccountRef", "object"),
        ("auth.workloadIdentity.serviceAccountRef.name", "string!"),
        ("auth.workloadIdentity.serviceAccountRef.namespace", "string"),
        ("auth.workloadIdentity.serviceAccountRef.audiences", "array"),
        ("tenantId", "string"),
        ("registry", "string!"),
        ("scope", "string"),
        ("environmentType", "string"),
    ];

    /// Collects the fields of a schema and their types in the same form.
    fn collect_fields(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
        let required = |name: &str| {
            let all = schema["required"].as_array();
            all.is_some_and(|all| all.iter().any(|r| r == name))
        };
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let mark = if required(name) { "!" } else { "" };
            found.push((path.clone(), format!("{}{mark}", field["type"].as_str().unwrap())));
            collect_fields(field, &path, found);
        }
    }

    #[test]
    fn the_generators_have_the_fields_of_external_secrets_operator() {
        let mut expected: Vec<_> = OPERATOR_FIELDS
            .iter()
            .map(|(path, field_type)| ((*path).to_owned(), (*field_type).to_owned()))
            .collect();
        expected.sort();
        let crds: Vec<_> = generators()
            .iter()
            .map(|crd| serde_json::to_value(crd).unwrap())
            .collect();
        let spec = |crd: &Value| {
            crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
        };
        let cluster = spec(&crds[1]);
        for schema in [
            &spec(&crds[0]),
            &cluster["properties"]["generator"]["properties"]["acrAccessTokenSpec"],
        ] {
            let mut found = Vec::new();
            collect_fields(schema, "", &mut found);
            found.sort();
            assert_eq!(found, expected);
            let environment = &schema["properties"]["environmentType"];
            assert_eq!(environment["default"], "PublicCloud");
            assert_eq!(
                environment["enum"],
                json!([
                    "PublicCloud",
                    "USGovernmentCloud",
                    "ChinaCloud",
                    "GermanCloud",
                    "AzureStackCloud"
                ])
            );
        }
        assert_eq!(cluster["required"], json!(["generator", "kind"]));
        for (crd, scope, kind) in [
            (&crds[0], "Namespaced", "ACRAccessToken"),
            (&crds[1], "Cluster", "ClusterGenerator"),
        ] {
            let names = &crd["spec"]["names"];
            assert_eq!(
                (&crd["spec"]["scope"], &names["kind"]),
                (&json!(scope), &json!(kind))
            );
            assert_eq!(
                names["categories"],
                json!(["external-secrets", "external-secrets-generators"])
            );
            assert_eq!(crd["spec"]["versions"][0]["name"], "v1alpha1");
            assert_eq!(crd["spec"]["versions"][0]["subresources"], json!({"status": {}}));
        }
    }
}
