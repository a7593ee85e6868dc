//! The JSON patch (RFC 6902) that adds the pull secrets to a Pod.
//!
//! The patch consists of explicit operations and not of a diff of a decoded Pod, because a diff would drop unknown
//! fields. It is small, because the API server decodes and applies every byte of it.

use super::review::PodView;
use base64::{Engine, engine::general_purpose::STANDARD};
use json_patch::{AddOperation, Patch, PatchOperation, jsonptr::Pointer};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use std::sync::{Arc, OnceLock};

/// The label of patched Pods, so that only these are watched.
pub const INJECTED_LABEL: &str = "acr-pull.dev/injected";
/// The annotation of a patched Pod that lists the pull secrets that were added.
pub const PULL_SECRETS_ANNOTATION: &str = "acr-pull.dev/pull-secrets";

/// The operations that add these pull secrets to the Pod. The patch is empty if the Pod already has them, as when an
/// API server calls the webhook again for the same Pod.
pub fn patch(pod: &PodView<'_>, names: &[&str]) -> Patch {
    let mut operations = Vec::with_capacity(names.len() + 2);
    let mut add = |path: &'static str, value: Value| {
        let path = Pointer::from_static(path).to_buf();
        operations.push(PatchOperation::Add(AddOperation { path, value }));
    };

    match &pod.image_pull_secrets {
        None => {
            let all: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            add("/spec/imagePullSecrets", Value::Array(all));
        }
        Some(present) => {
            for name in names {
                if !present.iter().any(|present| present == name) {
                    add("/spec/imagePullSecrets/-", json!({"name": name}));
                }
            }
        }
    }

    match &pod.labels {
        None => add("/metadata/labels", json!({INJECTED_LABEL: "true"})),
        Some(labels) if labels.injected.as_deref() != Some("true") => {
            add("/metadata/labels/acr-pull.dev~1injected", json!("true"));
        }
        Some(_) => {}
    }

    let list = names.join(",");
    match &pod.annotations {
        None => add("/metadata/annotations", json!({PULL_SECRETS_ANNOTATION: list})),
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

/// The patch as an AdmissionReview contains it: a JSON string of base64. `None` if the Pod already has these pull secrets.
///
/// The patch of a Pod of the usual shape depends on the names alone, and `usual` keeps it for the next Pod with the same
/// names: to build, serialize and encode it takes more than ten allocations, where a warm admission makes 28.
pub fn encoded_patch(
    pod: &PodView<'_>,
    names: &[&str],
    usual: Option<&OnceLock<Arc<RawValue>>>,
) -> Option<Arc<RawValue>> {
    let kept = usual.filter(|_| has_usual_shape(pod));
    if let Some(encoded) = kept.and_then(OnceLock::get) {
        return Some(encoded.clone());
    }
    let encoded = encode(&patch(pod, names))?;
    Some(match kept {
        Some(kept) => kept.get_or_init(|| encoded).clone(),
        None => encoded,
    })
}

/// Whether the Pod has labels and annotations, as those of controllers have, and nothing yet that the patch adds.
fn has_usual_shape(pod: &PodView<'_>) -> bool {
    let (labels, annotations) = (&pod.labels, &pod.annotations);
    labels.as_ref().is_some_and(|labels| labels.injected.is_none())
        && annotations
            .as_ref()
            .is_some_and(|annotations| annotations.pull_secrets.is_none())
        && pod.image_pull_secrets.is_none()
}

/// An empty patch is no patch: the API server refuses a response with a patch of zero operations and its type.
fn encode(patch: &Patch) -> Option<Arc<RawValue>> {
    if patch.0.is_empty() {
        return None;
    }
    let json = serde_json::to_vec(patch).ok()?;
    Some(to_raw_value(&STANDARD.encode(json)).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The Pod after the API server has applied the patch.
    fn patched(mut pod: Value, names: &[&str]) -> Value {
        let text = pod.to_string();
        let view: PodView = serde_json::from_str(&text).unwrap();
        json_patch::patch(&mut pod, &patch(&view, names)).unwrap();
        pod
    }

    #[test]
    fn a_minimal_pod_gets_pull_secrets_label_and_annotation() {
        assert_eq!(
            patched(json!({"metadata": {}, "spec": {"containers": []}}), &["a", "b"]),
            json!({
                "metadata": {
                    "labels": {INJECTED_LABEL: "true"},
                    "annotations": {PULL_SECRETS_ANNOTATION: "a,b"},
                },
                "spec": {"containers": [], "imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
            })
        );
    }

    #[test]
    fn existing_fields_of_the_pod_are_kept() {
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
    fn existing_labels_and_annotations_are_kept() {
        let pod = patched(
            json!({"metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}}, "spec": {}}),
            &["x"],
        );
        assert_eq!(
            pod["metadata"]["labels"],
            json!({"a": "b", INJECTED_LABEL: "true"})
        );
        assert_eq!(
            pod["metadata"]["annotations"],
            json!({"c": "d", PULL_SECRETS_ANNOTATION: "x"})
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
            prop_assert!(encoded_patch(&view, &names, None).is_none());
            for name in names {
                let count = once["spec"]["imagePullSecrets"].as_array().unwrap().iter().filter(|s| s["name"] == name).count();
                prop_assert!(count >= 1);
            }
        }

        #[test]
        fn a_kept_patch_is_used_for_pods_with_the_same_patch_only(pods in prop::collection::vec(pod(), 2..6)) {
            let names = ["a"];
            let usual = OnceLock::new();
            for pod in pods {
                let text = pod.to_string();
                let view: PodView = serde_json::from_str(&text).unwrap();
                let decoded = encoded_patch(&view, &names, Some(&usual)).map(|encoded| {
                    let base64: String = serde_json::from_str(encoded.get()).unwrap();
                    serde_json::from_slice::<Patch>(&STANDARD.decode(base64).unwrap()).unwrap()
                });
                let built = Some(patch(&view, &names)).filter(|patch| !patch.0.is_empty());
                prop_assert_eq!(decoded, built, "{}", text);
            }
        }
    }

    /// A Pod with or without each of the fields on which the patch depends. Every other Pod has the usual shape.
    fn pod() -> impl Strategy<Value = Value> {
        let usual = json!({"metadata": {"labels": {"app": "x"}, "annotations": {"x/y": "z"}}, "spec": {}});
        let optional = |values: &[Value]| prop::option::of(prop::sample::select(values.to_vec()));
        let lists = optional(&[json!([]), json!([{"name": "a"}]), json!([{"name": "b"}])]);
        let labels = optional(&[
            json!({"app": "x"}),
            json!({INJECTED_LABEL: "true"}),
            json!({INJECTED_LABEL: ""}),
        ]);
        let annotations = optional(&[
            json!({"x/y": "z"}),
            json!({PULL_SECRETS_ANNOTATION: "a"}),
            json!({PULL_SECRETS_ANNOTATION: "b"}),
        ]);
        let other = (lists, labels, annotations).prop_map(|(list, labels, annotations)| {
            let mut pod = json!({"metadata": {}, "spec": {}});
            for (part, field, value) in [
                ("spec", "imagePullSecrets", list),
                ("metadata", "labels", labels),
                ("metadata", "annotations", annotations),
            ] {
                if let Some(value) = value {
                    pod[part][field] = value;
                }
            }
            pod
        });
        prop_oneof![Just(usual), other]
    }
}
