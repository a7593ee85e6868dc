//! The field managers of a MutatingWebhookConfiguration, and which of them made the last change. Source:
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>.

use super::webhook_configuration::WebhookConfiguration;
use crate::{
    kubernetes::{self, CallError},
    telemetry::FIELD_MANAGER,
    untrusted::UntrustedText,
};
use kube::{Client, Resource};
use serde::Deserialize;

/// The API server's limit for the name of a field manager. Source:
/// <https://github.com/kubernetes/kubernetes/blob/v1.37.2/staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go>.
const MAX_NAME_BYTES: usize = 128;

/// The field manager that made the last change of this MutatingWebhookConfiguration, unless it is a replica of the
/// webhook.
pub async fn last_foreign(client: &Client, configuration: &str) -> Result<Option<String>, CallError> {
    let path = format!("{}/{configuration}", WebhookConfiguration::url_path(&(), None));
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| CallError::Transport(error.to_string()))?;
    let call = format!("reading the field managers of MutatingWebhookConfiguration {configuration}");
    let managers = kubernetes::try_call(&call, client.request::<FieldManagers>(request)).await?;
    let last = managers.last_other_than(FIELD_MANAGER);
    Ok(last.map(|name| UntrustedText::new(name).at_most(MAX_NAME_BYTES).to_string()))
}

/// The field managers of an object, and when each of them changed it. Watches do not decode them.
#[derive(Debug, Default, Deserialize)]
pub struct FieldManagers {
    metadata: ManagedFields,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    managed_fields: Vec<ManagedFieldsEntry>,
}

/// The time stays a text: it is in UTC to the second, so that texts compare as times do, and no time that the API server
/// accepts can fail the whole object.
#[derive(Debug, Deserialize)]
struct ManagedFieldsEntry {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    time: String,
}

impl FieldManagers {
    /// The manager that made the last change, unless it is `own`. A change within the same second as one by `own` counts
    /// as the last one.
    pub fn last_other_than(&self, own: &str) -> Option<&str> {
        let entries = &self.metadata.managed_fields;
        let last = entries
            .iter()
            .max_by_key(|entry| (&entry.time, entry.manager != own))?;
        (last.manager != own).then_some(&last.manager)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_last_change_is_attributed_to_its_field_manager() {
        let last = |entries: Value| {
            let object =
                json!({"kind": "MutatingWebhookConfiguration", "metadata": {"managedFields": entries}});
            let managers: FieldManagers = serde_json::from_value(object).unwrap();
            managers.last_other_than("own").map(str::to_owned)
        };
        let entry = |manager: &str, second: u8| json!({"manager": manager, "time": format!("2026-11-29T10:00:0{second}Z")});
        let argo = Some("argocd-controller".to_owned());
        assert_eq!(
            last(json!([
                entry("helm", 1),
                entry("own", 2),
                entry("argocd-controller", 3)
            ])),
            argo
        );
        assert_eq!(
            last(json!([entry("argocd-controller", 3), entry("own", 3)])),
            argo
        );
        assert_eq!(
            last(json!([entry("own", 4), entry("argocd-controller", 3)])),
            None
        );
        assert_eq!(last(json!([entry("own", 4)])), None);
        assert_eq!(last(json!([])), None);
        assert_eq!(
            last(json!([{"time": "9999-12-31T23:59:59Z"}])),
            Some(String::new())
        );
    }
}
