//! Comparison of the manifests of the chart with those of kustomize, without what Helm and kustomize each add.

use crate::{
    NAME,
    manifests::{Manifests, title},
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Labels of the chart alone.
const LABELS_OF_HELM: [&str; 4] = [
    "helm.sh/chart",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
];
/// Annotations of the chart alone. The name of kustomize's ConfigMap replaces the hash of the settings.
const ANNOTATIONS_OF_HELM: [&str; 2] = ["helm.sh/resource-policy", "acr-pull.dev/settings"];
const SETTINGS: &str = "acr-pull-webhook-settings";
/// The length of the hash that kustomize appends to the name of a ConfigMap.
const HASH_LENGTH: usize = 10;

/// The paths that differ, as `OBJECT/FIELD/FIELD: kustomize VALUE, chart VALUE`.
pub fn differences(kustomize: &Manifests, chart: &Manifests) -> Vec<String> {
    let mut found = Vec::new();
    let [left, right] = [kustomize, chart].map(normalised);
    let titles: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for title in titles {
        compare(title, left.get(title), right.get(title), &mut found);
    }
    found
}

fn compare(path: &str, kustomize: Option<&Value>, chart: Option<&Value>, found: &mut Vec<String>) {
    match (kustomize, chart) {
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for name in names {
                compare(&format!("{path}/{name}"), left.get(name), right.get(name), found);
            }
        }
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            for index in 0..left.len().max(right.len()) {
                compare(
                    &format!("{path}/{index}"),
                    left.get(index),
                    right.get(index),
                    found,
                );
            }
        }
        (left, right) if left == right => {}
        (left, right) => {
            let [left, right] = [left, right].map(|v| v.map_or("nothing".to_owned(), Value::to_string));
            found.push(format!("{path}: kustomize {left}, chart {right}"));
        }
    }
}

/// The objects by their titles.
fn normalised(manifests: &Manifests) -> BTreeMap<String, Value> {
    let mut objects = BTreeMap::new();
    // `helm install --create-namespace` creates the namespace of a release.
    for object in manifests.0.iter().filter(|object| object["kind"] != "Namespace") {
        let mut object = object.clone();
        let of_crd = object["kind"] == "CustomResourceDefinition";
        clean(&mut object["metadata"], of_crd);
        if let Some(template) = object.pointer_mut("/spec/template/metadata") {
            clean(template, of_crd);
        }
        rewrite(&mut object);
        let title = format!("{} {}", object["apiVersion"].as_str().unwrap(), title(&object));
        let twice = objects.insert(title.clone(), object);
        assert!(twice.is_none(), "{title} is rendered twice");
    }
    objects
}

/// Removes what only Helm writes.
fn clean(metadata: &mut Value, of_crd: bool) {
    let metadata = metadata.as_object_mut().unwrap();
    if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|label, _| {
            let of_chart = of_crd && label == "app.kubernetes.io/name";
            !of_chart && !LABELS_OF_HELM.contains(&label.as_str())
        });
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|annotation, _| !ANNOTATIONS_OF_HELM.contains(&annotation.as_str()));
    }
    for name in ["labels", "annotations"] {
        if metadata
            .get(name)
            .and_then(Value::as_object)
            .is_some_and(Map::is_empty)
        {
            metadata.remove(name);
        }
    }
}

/// Removes kustomize's hash from the name of the ConfigMap, and the tag of the image: an overlay sets the tag in
/// kustomize, and it is the version in the chart.
fn rewrite(value: &mut Value) {
    match value {
        Value::String(text) if is_hashed(text) => *text = SETTINGS.to_owned(),
        Value::Array(items) => items.iter_mut().for_each(rewrite),
        Value::Object(fields) => {
            if let Some(Value::String(image)) = fields.get_mut("image")
                && image.starts_with(&format!("{NAME}:"))
            {
                *image = NAME.to_owned();
            }
            fields.values_mut().for_each(rewrite);
        }
        _ => {}
    }
}

fn is_hashed(text: &str) -> bool {
    let hash = text
        .strip_prefix(SETTINGS)
        .and_then(|rest| rest.strip_prefix('-'));
    hash.is_some_and(|hash| hash.len() == HASH_LENGTH && hash.chars().all(|c| c.is_ascii_alphanumeric()))
}
