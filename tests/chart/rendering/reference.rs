//! The README of the chart, its schema and its metadata for Artifact Hub.

use chart::{
    helm::{chart, helm},
    prometheus::yaml,
    reference::{Entry, entries, file, generated, leaves},
};
use serde_json::Value;

fn parsed(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file(name)).unwrap()).unwrap()
}

#[testkit::test]
async fn the_readme_and_the_schema_are_generated_from_the_values() {
    for (path, expected) in generated() {
        let found = std::fs::read_to_string(&path).unwrap();
        assert!(
            found == expected,
            "{} is outdated: run `make chart-reference`",
            path.display()
        );
    }
}

#[testkit::test]
async fn each_value_has_a_comment_and_a_schema() {
    let values = std::fs::read_to_string(file("values.yaml")).unwrap();
    let entries = entries(&values);
    let described = |path: &str| {
        let outer = |entry: &&Entry| path == entry.name() || path.starts_with(&(entry.name() + "."));
        entries
            .iter()
            .filter(outer)
            .any(|entry| !entry.comment.is_empty())
    };
    let schema = parsed("values.schema.json");
    let leaves = leaves(&schema);
    assert!(leaves.len() > 80, "{leaves:?}");
    let silent: Vec<_> = leaves
        .iter()
        .filter(|path| *path != "global" && !described(path))
        .collect();
    assert!(silent.is_empty(), "values without a comment: {silent:?}");
    for entry in entries {
        let name = entry.name();
        let known = leaves
            .iter()
            .any(|leaf| name.starts_with(leaf) || leaf.starts_with(&(name.clone() + ".")));
        assert!(known, "{name} is not in the schema");
    }
}

#[test]
fn values_in_consecutive_lines_share_a_comment() {
    let yaml = "# One ---\n\n# About a\n# and b.\na: 1\nb: {}\n\nc:\n  # Inner.\n  d: [x]\n  # List.\n  e:\n    - f: 1\n";
    let found: Vec<_> = entries(yaml)
        .into_iter()
        .map(|entry| format!("{} {}: {}", entry.section, entry.name(), entry.comment))
        .collect();
    assert_eq!(
        found,
        [
            "One a: About a and b.",
            "One b: About a and b.",
            "One c: ",
            "One c.d: Inner.",
            "One c.e: List."
        ]
    );
}

#[testkit::test]
async fn helm_shows_the_readme_of_the_packaged_chart() {
    let shown = helm("show").arg("readme").arg(chart()).succeed().await;
    assert!(shown.contains("| `azure.tenantId` | `\"\"` |"), "{shown}");
}

/// Artifact Hub ignores an annotation that it cannot parse.
#[testkit::test]
async fn the_annotations_for_artifact_hub_name_the_kinds_and_the_image_of_the_chart() {
    let metadata = yaml(file("Chart.yaml"));
    let annotation = |name: &str| -> Value {
        let text = metadata["annotations"][format!("artifacthub.io/{name}")].as_str();
        serde_saphyr::from_str(text.unwrap_or_else(|| panic!("the annotation {name}"))).unwrap()
    };
    let named: Vec<_> = annotation("crds")
        .as_array()
        .unwrap()
        .iter()
        .map(|crd| crd["name"].clone())
        .collect();
    let mut kinds = acr_pull_webhook::crds::own();
    kinds.extend(acr_pull_webhook::crds::generators());
    let kinds: Vec<_> = kinds
        .into_iter()
        .map(|crd| Value::from(crd.metadata.name.unwrap()))
        .collect();
    assert_eq!(named, kinds);
    let version = metadata["appVersion"].as_str().unwrap();
    assert_eq!(
        annotation("images")[0]["image"],
        format!("acr-pull-webhook:{version}")
    );
    assert!(annotation("links").as_array().unwrap().len() >= 2);
}
