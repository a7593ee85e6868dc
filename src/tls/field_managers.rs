//! The field managers of a MutatingWebhookConfiguration, and which of them has overwritten what the webhook published.
//! Source: <https://kubernetes.io/docs/reference/using-api/server-side-apply/#managers>.

use super::webhook_configuration::WebhookConfiguration;
use crate::{
    kubernetes::{self, CallError},
    telemetry::FIELD_MANAGER,
    untrusted::UntrustedText,
};
use kube::{Client, Resource};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::Value;

/// The API server's limit for the name of a field manager. Source:
/// <https://github.com/kubernetes/kubernetes/blob/v1.37.2/staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go>.
const MAX_NAME_BYTES: usize = 128;

/// Who has changed fields that the webhook had published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedBy {
    /// A replica of the webhook.
    Replica,
    /// This field manager.
    Manager(String),
    /// A field manager that removed a field, and so does not own it.
    Unknown,
}

/// Who has changed the path, and the CA bundle if the webhook publishes one, of this MutatingWebhookConfiguration.
pub async fn changed_by(
    client: &Client,
    configuration: &str,
    publishes_bundle: bool,
) -> Result<ChangedBy, CallError> {
    let path = format!("{}/{configuration}", WebhookConfiguration::url_path(&(), None));
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| CallError::Transport(error.to_string()))?;
    let call = format!("reading the field managers of MutatingWebhookConfiguration {configuration}");
    let managed = kubernetes::try_call(&call, client.request::<Managed>(request)).await?;
    Ok(managed.changed_by(publishes_bundle))
}

/// The field managers of an object. Watches do not decode them.
#[derive(Debug, Default, Deserialize)]
struct Managed {
    metadata: ManagedFields,
    #[serde(default)]
    webhooks: Vec<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ManagedFields {
    managed_fields: Vec<Entry>,
}

/// The fields that a manager owns. Other parts, such as a time that cannot be represented, are not decoded.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entry {
    manager: String,
    #[serde(rename = "fieldsV1")]
    fields: Value,
}

impl Entry {
    /// The number of entries of the registration in which the manager owns the field with one of these paths.
    fn owned(&self, paths: &[&str]) -> usize {
        let webhooks = self.fields["f:webhooks"].as_object().into_iter().flatten();
        webhooks
            .filter(|(_, webhook)| {
                let client = &webhook["f:clientConfig"];
                paths.iter().any(|path| client.pointer(path).is_some())
            })
            .count()
    }
}

impl Managed {
    fn changed_by(&self, publishes_bundle: bool) -> ChangedBy {
        let mut published = vec![&["/f:service/f:path", "/f:url"][..]];
        if publishes_bundle {
            published.push(&["/f:caBundle"]);
        }
        let entries = &self.metadata.managed_fields;
        let (own, foreign): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| entry.manager == FIELD_MANAGER);
        for entry in foreign {
            if published.iter().any(|paths| entry.owned(paths) > 0) {
                let name = UntrustedText::new(&entry.manager).at_most(MAX_NAME_BYTES);
                return ChangedBy::Manager(name.to_string());
            }
        }
        let owns_all = published.iter().all(|paths| {
            let owned: usize = own.iter().map(|entry| entry.owned(paths)).sum();
            owned >= self.webhooks.len()
        });
        match owns_all {
            true => ChangedBy::Replica,
            false => ChangedBy::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A field manager that owns these fields of the two entries of a registration.
    fn manager(name: &str, first: Value, second: Value) -> Value {
        let fields = json!({"f:webhooks": {
            "k:{\"name\":\"pods.acr-pull.dev\"}": {"f:clientConfig": first},
            "k:{\"name\":\"namespaces.acr-pull.dev\"}": {"f:clientConfig": second},
        }});
        json!({"manager": name, "time": "9999-12-31T23:59:59Z", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn changed_by(managers: &[Value], publishes_bundle: bool) -> ChangedBy {
        let object = json!({"metadata": {"managedFields": managers}, "webhooks": [{}, {}]});
        let managed: Managed = serde_json::from_value(object).unwrap();
        managed.changed_by(publishes_bundle)
    }

    #[test]
    fn a_change_is_attributed_to_the_manager_that_owns_a_published_field() {
        let both = json!({"f:caBundle": {}, "f:service": {"f:path": {}}});
        let path = json!({"f:service": {"f:path": {}}});
        let bundle = json!({"f:caBundle": {}});
        let service = json!({"f:service": {"f:name": {}, "f:namespace": {}}});
        let helm = manager("helm", service.clone(), service);
        let own = |first: &Value, second: &Value| manager(FIELD_MANAGER, first.clone(), second.clone());
        let injector = manager("cainjector", bundle.clone(), json!({}));
        let by_injector = ChangedBy::Manager("cainjector".to_owned());

        let changed = changed_by(&[helm.clone(), own(&path, &both), injector.clone()], true);
        assert_eq!(changed, by_injector);
        // With a certificate of cert-manager, its injector publishes the CA bundle.
        let changed = changed_by(&[helm.clone(), own(&path, &path), injector], false);
        assert_eq!(changed, ChangedBy::Replica);
        assert_eq!(
            changed_by(&[helm.clone(), own(&both, &both)], true),
            ChangedBy::Replica
        );
        assert_eq!(
            changed_by(&[helm.clone(), own(&path, &both)], true),
            ChangedBy::Unknown
        );
        assert_eq!(changed_by(&[helm, own(&both, &bundle)], true), ChangedBy::Unknown);
        assert_eq!(changed_by(&[], true), ChangedBy::Unknown);
    }

    #[test]
    fn a_url_is_owned_in_place_of_a_path() {
        let url = json!({"f:url": {}});
        let own = manager(FIELD_MANAGER, url.clone(), url.clone());
        assert_eq!(changed_by(std::slice::from_ref(&own), false), ChangedBy::Replica);
        let kubectl = manager("kubectl-edit", url, json!({}));
        let expected = ChangedBy::Manager("kubectl-edit".to_owned());
        assert_eq!(changed_by(&[own, kubectl], false), expected);
    }
}
