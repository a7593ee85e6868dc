//! Which Pods an entry of the registration selects, by the labels of their Namespace.
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>.

use super::api::{items, name, text};
use serde_json::Value;

/// A requirement that a Namespace does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The key of the label.
    pub key: String,
    /// The requirement, as a sentence continues after "selects only Namespaces".
    pub requirement: String,
}

/// The first requirement of the entry's `namespaceSelector` that the Namespace does not meet.
pub fn unmet(entry: &Value, namespace: &Value) -> Option<Unmet> {
    let selector = &entry["namespaceSelector"];
    let label = |key: &str| match namespace["metadata"]["labels"][key].as_str() {
        // The API server adds this label to every Namespace.
        None if key == "kubernetes.io/metadata.name" => Some(name(namespace)),
        value => value,
    };
    for (key, wanted) in selector["matchLabels"].as_object().into_iter().flatten() {
        let wanted = wanted.as_str().unwrap_or_default();
        if label(key) != Some(wanted) {
            return Some(Unmet {
                key: key.clone(),
                requirement: format!("with the label {key}={wanted}"),
            });
        }
    }
    items(selector, "/matchExpressions")
        .iter()
        .find_map(|expression| {
            let key = text(expression, "/key");
            let values: Vec<_> = items(expression, "/values")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            let found = label(key);
            let is_listed = found.is_some_and(|found| values.contains(&found));
            let list = values.join(", ");
            let (is_met, requirement) = match text(expression, "/operator") {
                "In" => (is_listed, format!("whose label {key} is one of {list}")),
                "NotIn" => (!is_listed, format!("whose label {key} is not one of {list}")),
                "Exists" => (found.is_some(), format!("with the label {key}")),
                "DoesNotExist" => (found.is_none(), format!("without the label {key}")),
                operator => (false, format!("by the unknown operator {operator} for {key}")),
            };
            (!is_met).then(|| Unmet {
                key: key.to_owned(),
                requirement,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_requirement_that_a_namespace_does_not_meet_is_named() {
        let entry = json!({"namespaceSelector": {
            "matchLabels": {"team": "a"},
            "matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
                {"key": "control-plane", "operator": "NotIn", "values": ["true"]},
                {"key": "default", "operator": "Exists"},
                {"key": "old", "operator": "DoesNotExist"},
                {"key": "stage", "operator": "In", "values": ["dev", "test"]}]}});
        let key = |name: &str, labels: Value| {
            unmet(&entry, &json!({"metadata": {"name": name, "labels": labels}})).map(|unmet| unmet.key)
        };
        let well = json!({"team": "a", "default": "x", "stage": "dev"});
        let with = |key: &str, value: Value| {
            let mut labels = well.clone();
            labels[key] = value;
            labels
        };
        assert_eq!(key("ns", well.clone()), None);
        assert_eq!(key("ns", with("team", json!("b"))).as_deref(), Some("team"));
        assert_eq!(
            key("kube-system", well.clone()).as_deref(),
            Some("kubernetes.io/metadata.name")
        );
        assert_eq!(
            key("ns", with("control-plane", json!("true"))).as_deref(),
            Some("control-plane")
        );
        assert_eq!(key("ns", with("control-plane", json!("x"))), None);
        assert_eq!(
            key("ns", with("default", Value::Null)).as_deref(),
            Some("default")
        );
        assert_eq!(key("ns", with("old", json!("x"))).as_deref(), Some("old"));
        assert_eq!(key("ns", with("stage", json!("prod"))).as_deref(), Some("stage"));
        assert_eq!(unmet(&json!({}), &json!({"metadata": {"name": "ns"}})), None);
    }
}
