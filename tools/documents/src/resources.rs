//! The page of custom resources, from their schemas.

use crate::{
    DocumentError,
    text::{self, cell, code, row},
};
use acr_pull_webhook::crds;
use serde_json::Value;

/// `docs/crds.md`.
pub fn page() -> Result<String, DocumentError> {
    let mut sections = Vec::new();
    for crd in crds::generators().iter().chain(&crds::own()) {
        let crd = serde_json::to_value(crd).map_err(|error| DocumentError::Wrong(error.to_string()))?;
        sections.push(section(&crd));
    }
    Ok(text::page(include_str!("../texts/crds.md"), &sections.join("\n")))
}

fn section(crd: &Value) -> String {
    let spec = &crd["spec"];
    let version = &spec["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let names = &spec["names"];
    let mut text = format!(
        "## {}\n\n{}\n\n`{}/{}`, {}; `kubectl get {}`.\n\n",
        string(&names["kind"]),
        string(&schema["description"]),
        string(&spec["group"]),
        string(&version["name"]),
        if string(&spec["scope"]) == "Namespaced" {
            "namespaced"
        } else {
            "cluster-scoped"
        },
        names["shortNames"][0]
            .as_str()
            .unwrap_or(string(&names["plural"])),
    );
    let mut fields = String::new();
    for part in ["spec", "status"] {
        collect_fields(&schema["properties"][part], part, &mut fields);
    }
    text += &format!("| field | type | meaning |\n|---|---|---|\n{fields}");
    let columns: String = array(&version["additionalPrinterColumns"]).map(column).collect();
    if !columns.is_empty() {
        text += &format!("\n| column of `kubectl get` | field |\n|---|---|\n{columns}");
    }
    text
}

/// A printed column. Columns with a priority are printed with `--output wide`.
fn column(column: &Value) -> String {
    let wide = column["priority"].as_u64().unwrap_or(0) > 0;
    let name = format!(
        "{}{}",
        string(&column["name"]),
        if wide { " (`--output wide`)" } else { "" }
    );
    row([name, code(string(&column["jsonPath"]))])
}

/// Adds a row for each field below this one.
fn collect_fields(schema: &Value, path: &str, rows: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let required = array(&schema["required"]).any(|required| required == name);
        let path = format!("{path}.{name}");
        let items = &field["items"];
        let kind = match string(&field["type"]) {
            "array" => format!("list of {}", string(&items["type"])),
            other => other.to_owned(),
        };
        let kind = if required {
            format!("{kind}, required")
        } else {
            kind
        };
        *rows += &row([code(&path), kind, meaning(field)]);
        // The generator inside of a ClusterGenerator has the fields of an ACRAccessToken.
        if name != "acrAccessTokenSpec" {
            collect_fields(field, &path, rows);
            collect_fields(items, &format!("{path}[]"), rows);
        }
    }
}

/// The description of a field, with what its schema permits.
fn meaning(field: &Value) -> String {
    let mut parts = vec![cell(string(&field["description"]))];
    let values: Vec<_> = array(&field["enum"])
        .filter_map(Value::as_str)
        .map(code)
        .collect();
    if !values.is_empty() {
        parts.push(format!("One of {}.", values.join(", ")));
    }
    if let Some(default) = field["default"].as_str() {
        parts.push(format!("Default: {}.", code(default)));
    }
    for (key, unit) in [("maxLength", "bytes"), ("maxItems", "entries")] {
        if let Some(maximum) = field[key].as_u64() {
            parts.push(format!("At most {maximum} {unit}."));
        }
    }
    for rule in array(&field["x-kubernetes-validations"]) {
        parts.push(format!("Rule: {}.", cell(string(&rule["message"]))));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" ")
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_type_its_default_and_its_limits() {
        let page = page().unwrap();
        for part in [
            "## ACRAccessToken\n",
            "| `spec.registry` | string, required | The registry's login server, such as contoso.azurecr.io. At most 253",
            "| `spec.environmentType` | string | The Azure cloud. One of `PublicCloud`, ",
            "Default: `PublicCloud`.",
            "| `spec.auth.workloadIdentity.serviceAccountRef.audiences` | list of string | ",
            "| `spec.generator.acrAccessTokenSpec` | object",
            "| `status.conditions[].reason` | string, required",
            "`acr-pull.dev/v1alpha1`, namespaced; `kubectl get acrps`.",
            "| Scope (`--output wide`) | `.status.scope` |",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        assert!(!page.contains("acrAccessTokenSpec.registry"));
    }
}
