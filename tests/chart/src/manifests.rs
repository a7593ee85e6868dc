//! Manifests as values.

use serde_json::{Map, Value};

/// The objects of a stream of YAML documents.
pub struct Manifests(pub Vec<Value>);

impl Manifests {
    pub fn parse(yaml: &str) -> Self {
        Self(testkit::programs::manifests(yaml))
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The only object of a kind.
    pub fn only(&self, kind: &str) -> &Value {
        let found = self.of_kind(kind);
        assert_eq!(found.len(), 1, "one {kind} is rendered");
        found[0]
    }

    /// The object of a kind and a name.
    pub fn named(&self, kind: &str, name: &str) -> &Value {
        let mut found = self.of_kind(kind).into_iter();
        found
            .find(|object| object["metadata"]["name"] == name)
            .unwrap_or_else(|| panic!("the {kind} {name} is rendered"))
    }

    /// The value of an option of the webhook's program, without its prefix `ACR_PULL_WEBHOOK_`.
    pub fn option(&self, name: &str) -> &Value {
        self.settings()
            .get(&format!("ACR_PULL_WEBHOOK_{name}"))
            .unwrap_or_else(|| panic!("the option {name} is set"))
    }

    /// The variables of the webhook's program. Other ConfigMaps contain certificates.
    pub fn settings(&self) -> &Map<String, Value> {
        let mut maps = self.of_kind("ConfigMap").into_iter();
        let settings = maps.find(|map| map["metadata"]["name"].as_str().unwrap().ends_with("-settings"));
        settings.expect("the settings are rendered")["data"]
            .as_object()
            .unwrap()
    }

    /// The objects whose kinds are part of Kubernetes or of this project, as JSON for `kubectl apply`.
    pub fn without_foreign_kinds(&self) -> String {
        let foreign = [
            "cert-manager.io/",
            "monitoring.coreos.com/",
            "azmonitoring.coreos.com/",
        ];
        let items = self.0.iter().filter(|object| {
            let version = object["apiVersion"].as_str().unwrap();
            !foreign.iter().any(|group| version.starts_with(group))
        });
        let items: Vec<_> = items.collect();
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
    }
}

/// How an assertion names an object.
pub fn title(object: &Value) -> String {
    let metadata = &object["metadata"];
    let [kind, name] = [&object["kind"], &metadata["name"]].map(|value| value.as_str().unwrap());
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// All strings in a value, including those inside other values.
pub fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// Whether a field of this name is in a value or inside it.
pub fn has_field(value: &Value, name: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| has_field(item, name)),
        Value::Object(fields) => {
            fields.contains_key(name) || fields.values().any(|value| has_field(value, name))
        }
        _ => false,
    }
}
