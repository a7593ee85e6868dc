//! The JSON patch (RFC 6902) that names the pull secrets in a Pod.
//!
//! Explicit operations, never a diff of a decoded Pod: that would drop fields we do not
//! know. Small, because the API server pays for every byte of it.

use super::review::PodView;
use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::Pointer};
use serde_json::{Value, json};

/// Marks Pods that we patched, so that they can be watched alone.
pub const INJECTED: &str = "acr-pull.dev/injected";
/// Tells which of a Pod's pull secrets are ours.
pub const PULL_SECRETS: &str = "acr-pull.dev/pull-secrets";

/// The operations still missing for the Pod to name these pull secrets; none on a second call.
pub fn patch(pod: &PodView<'_>, names: &[&str]) -> Patch {
    let mut operations = Vec::with_capacity(names.len() + 2);
    let mut add = |path: &'static str, value: Value| {
        let path = Pointer::from_static(path).to_buf();
        operations.push(PatchOperation::Add(AddOperation { path, value }));
    };

    match &pod.spec.image_pull_secrets {
        None => {
            let all: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            add("/spec/imagePullSecrets", Value::Array(all));
        }
        Some(present) => {
            for name in names {
                if !present.0.iter().any(|p| p.name == *name) {
                    add("/spec/imagePullSecrets/-", json!({"name": name}));
                }
            }
        }
    }

    match &pod.metadata.labels {
        None => add("/metadata/labels", json!({INJECTED: "true"})),
        Some(labels) if labels.injected.as_deref() != Some("true") => {
            add("/metadata/labels/acr-pull.dev~1injected", json!("true"));
        }
        Some(_) => {}
    }

    let list = names.join(",");
    match &pod.metadata.annotations {
        None => add("/metadata/annotations", json!({PULL_SECRETS: list})),
        Some(annotations) if annotations.pull_secrets.as_deref() != Some(&list) => {
            add(
                "/metadata/annotations/acr-pull.dev~1pull-secrets",
                Value::String(list),
            );
        }
        Some(_) => {}
    }
    Patch(operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Patches as the API server does, and returns the Pod.
    fn patched(mut pod: Value, names: &[&str]) -> Value {
        let text = pod.to_string();
        let view: PodView = serde_json::from_str(&text).unwrap();
        json_patch::patch(&mut pod, &patch(&view, names)).unwrap();
        pod
    }

    #[test]
    fn a_bare_pod_gets_all_three() {
        assert_eq!(
            patched(json!({"metadata": {}, "spec": {"containers": []}}), &["a", "b"]),
            json!({
                "metadata": {
                    "labels": {INJECTED: "true"},
                    "annotations": {PULL_SECRETS: "a,b"},
                },
                "spec": {"containers": [], "imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
            })
        );
    }

    #[test]
    fn what_the_pod_had_stays_in_its_order() {
        let pod = patched(
            json!({
                "metadata": {"labels": {"app": "x"}, "annotations": {"acr-pull.dev/access-token": "contoso"}},
                "spec": {"imagePullSecrets": [{"name": "mine"}, {"name": "a"}], "unknownField": [1]},
            }),
            &["a", "b"],
        );
        assert_eq!(
            pod["spec"],
            json!({"imagePullSecrets": [{"name": "mine"}, {"name": "a"}, {"name": "b"}], "unknownField": [1]})
        );
        assert_eq!(pod["metadata"]["labels"]["app"], "x");
        assert_eq!(
            pod["metadata"]["annotations"]["acr-pull.dev/access-token"],
            "contoso"
        );
    }

    #[test]
    fn keys_are_added_to_the_labels_and_annotations_that_there_are() {
        let pod = patched(
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {}}),
            &["x"],
        );
        assert_eq!(pod["metadata"]["labels"], json!({"a": "b", INJECTED: "true"}));
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"c": "d", PULL_SECRETS: "x"})
        );
    }

    proptest! {
        #[test]
        fn a_second_call_patches_nothing(
            existing in prop::option::of(prop::collection::vec("[a-d]", 0..4)),
            names in prop::collection::hash_set("[a-f]", 1..4),
            labelled in any::<bool>(),
        ) {
            let mut pod = json!({"metadata": {"annotations": {"x/y": "z"}}, "spec": {}});
            if let Some(existing) = existing {
                pod["spec"]["imagePullSecrets"] = existing.iter().map(|n| json!({"name": n})).collect();
            }
            if labelled {
                pod["metadata"]["labels"] = json!({"a": "b"});
            }
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            let once = patched(pod, &names);
            let text = once.to_string();
            let view: PodView = serde_json::from_str(&text).unwrap();
            prop_assert!(patch(&view, &names).0.is_empty());
            for name in names {
                let count = once["spec"]["imagePullSecrets"].as_array().unwrap().iter().filter(|s| s["name"] == name).count();
                prop_assert!(count >= 1);
            }
        }
    }
}
