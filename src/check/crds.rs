//! The CustomResourceDefinitions: installed, served in the right version, and with all fields that the webhook writes.

use super::{
    api::{ApiServer, Unread, items, name},
    reason::Reason,
    report::Finding,
};
use crate::{
    cli,
    problem::{self, Problem},
};
use serde_json::Value;

const CHECK: &str = "CustomResourceDefinitions";
/// The version of all three kinds.
const VERSION: &str = "v1alpha1";
/// The kind that only the webhook writes.
const OWN: &str = "acrpullsecrets.acr-pull.dev";
const GENERATORS: [&str; 2] = [
    "acraccesstokens.generators.external-secrets.io",
    "clustergenerators.generators.external-secrets.io",
];
/// The fields of the status that the webhook writes. An API server drops a field that the CRD does not have.
const STATUS_FIELDS: [&str; 12] = [
    "clientID",
    "conditions",
    "expirationTime",
    "identity",
    "inputsHash",
    "lastRenewalTime",
    "registry",
    "scope",
    "secretResourceVersion",
    "secretUID",
    "subject",
    "tenantID",
];

/// The command that installs the definitions of this version.
fn install() -> String {
    format!(
        "{} crds | kubectl apply --server-side --force-conflicts --filename -",
        cli::program_name()
    )
}

/// Checks all definitions.
pub async fn check(api: &ApiServer) -> Vec<Finding> {
    let mut found = Vec::new();
    for crd in [OWN].into_iter().chain(GENERATORS) {
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{crd}");
        match api.get(&path).await {
            Ok(definition) => found.push(definition),
            Err(Unread::NotFound) => return vec![not_installed(crd)],
            // Permissions to read definitions are rare. The discovery of the API needs none.
            Err(Unread::Forbidden(_)) => return by_discovery(api).await,
            Err(unread) => return vec![unread.finding(CHECK, &format!("CustomResourceDefinition {crd}"))],
        }
    }
    let findings: Vec<_> = found.iter().filter_map(outdated).collect();
    if findings.is_empty() {
        return vec![Finding::ok(
            CHECK,
            format!("all three are installed in version {VERSION}"),
        )];
    }
    findings
}

/// Checks that the kinds are served, by the discovery documents of their groups.
async fn by_discovery(api: &ApiServer) -> Vec<Finding> {
    for crd in [OWN].into_iter().chain(GENERATORS) {
        let (plural, group) = crd.split_once('.').unwrap_or((crd, ""));
        match api.get(&format!("/apis/{group}/{VERSION}")).await {
            Ok(list)
                if items(&list, "/resources")
                    .iter()
                    .any(|kind| kind["name"] == plural) => {}
            Ok(_) | Err(Unread::NotFound) => return vec![not_installed(crd)],
            Err(unread) => return vec![unread.finding(CHECK, &format!("the API group {group}"))],
        }
    }
    let message = format!("all three are served in version {VERSION}; you may not read their schemas");
    vec![Finding::ok(CHECK, message)]
}

fn not_installed(crd: &str) -> Finding {
    let message = format!("CustomResourceDefinition {crd} is not installed in version {VERSION}");
    let problem = Problem::new(problem::Reason::CrdNotInstalled, message);
    Finding::problem(CHECK, &problem.command(install()))
}

/// The finding about a definition that this version of the webhook cannot work with.
fn outdated(definition: &Value) -> Option<Finding> {
    let crd = name(definition);
    let failed = |why: String| {
        let message = format!("CustomResourceDefinition {crd} {why}");
        Some(Finding::failed(CHECK, Reason::CrdOutdated, message).command(install()))
    };
    let mut versions = items(definition, "/spec/versions").iter();
    let Some(version) = versions.find(|version| version["name"] == VERSION && version["served"] == true)
    else {
        return failed(format!("does not serve version {VERSION}"));
    };
    let mut conditions = items(definition, "/status/conditions").iter();
    if !conditions.any(|c| c["type"] == "Established" && c["status"] == "True") {
        return failed("is not established".to_owned());
    }
    if crd != OWN {
        return None;
    }
    let status = &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
    let missing: Vec<_> = STATUS_FIELDS
        .into_iter()
        .filter(|field| status.get(field).is_none())
        .collect();
    if missing.is_empty() {
        return None;
    }
    failed(format!(
        "is of another version of the webhook: its status lacks {}",
        missing.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn definition() -> Value {
        let mut definition = serde_json::to_value(&crate::crds::own()[0]).unwrap();
        definition["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        definition
    }

    #[test]
    fn the_definition_of_this_version_is_well_and_has_the_listed_fields() {
        assert_eq!(outdated(&definition()), None);
        let properties = &definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        let fields: Vec<_> = properties["status"]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        let unlisted: Vec<_> = fields
            .iter()
            .filter(|f| !STATUS_FIELDS.contains(&f.as_str()))
            .collect();
        assert_eq!(
            unlisted,
            ["unusedSince"],
            "list a new field of the status, unless its loss is harmless"
        );
    }

    #[test]
    fn a_definition_without_the_version_or_with_an_old_schema_is_outdated() {
        let message = |change: fn(&mut Value)| {
            let mut definition = definition();
            change(&mut definition);
            let finding = outdated(&definition).expect("the definition is outdated");
            assert_eq!(finding.reason, Some("CrdOutdated"));
            finding.message
        };
        let version = |d: &mut Value| d["spec"]["versions"][0]["name"] = json!("v1");
        assert!(message(version).ends_with("does not serve version v1alpha1"));
        let unestablished = |d: &mut Value| d["status"] = json!({});
        assert!(message(unestablished).ends_with("is not established"));
        let old = |d: &mut Value| {
            let path = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
            d.pointer_mut(path)
                .unwrap()
                .as_object_mut()
                .unwrap()
                .remove("secretResourceVersion");
        };
        assert!(message(old).ends_with("lacks secretResourceVersion"));
    }
}
