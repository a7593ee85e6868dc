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

/// The kinds as one YAML stream: our own, and unless they are left out, the generators'. They are the manifests, which a test
/// compares with the types: what makes them of these is no part of the program.
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

/// Our own kind.
pub fn own() -> Vec<CustomResourceDefinition> {
    vec![labelled(ACRPullSecret::crd())]
}

/// The two kinds of External Secrets Operator.
pub fn generators() -> Vec<CustomResourceDefinition> {
    vec![
        labelled(with_status(ACRAccessToken::crd())),
        labelled(with_status(ClusterGenerator::crd())),
    ]
}

/// By this label `deploy/crds.sh` knows our copies from External Secrets Operator's.
fn labelled(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let label = (
        "app.kubernetes.io/part-of".to_owned(),
        "acr-pull-webhook".to_owned(),
    );
    crd.metadata.labels.get_or_insert_default().extend([label]);
    crd
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
    use serde_json::Value;

    #[test]
    fn the_manifests_are_those_of_the_types_and_all_are_printed() {
        let mut printed = String::new();
        for (folder, crds) in [("crds", own()), ("generators", generators())] {
            for crd in crds {
                let path = format!("deploy/kustomize/{folder}/{}.yaml", crd.spec.names.plural);
                let manifest = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(
                    manifest == serde_saphyr::to_string(&crd).unwrap(),
                    "{path} is not what the types say: run `make crds` and look at what changed"
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

    /// External Secrets Operator's `ACRAccessToken`, as its API reference has it: each field below `spec` with its type, `!`
    /// where it is required.
    const OPERATORS: &[(&str, &str)] = &[
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

    /// Each field of a schema with its type, as above.
    fn fields(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
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
            fields(field, &path, found);
        }
    }

    #[test]
    fn the_generators_are_external_secrets_operators_field_for_field() {
        let mut expected: Vec<_> = OPERATORS
            .iter()
            .map(|(path, what)| ((*path).to_owned(), (*what).to_owned()))
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
            fields(schema, "", &mut found);
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
