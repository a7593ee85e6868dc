//! The parts of a MutatingWebhookConfiguration that the certificate manager reads, and the JSON patch that publishes a
//! CA bundle and a path in it.

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Resource;
use serde::Deserialize;
use serde_json::{Value, json};

/// A MutatingWebhookConfiguration.
#[derive(Clone, Debug, Resource, Deserialize)]
#[resource(inherit = "k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration")]
pub struct WebhookConfiguration {
    metadata: ObjectMeta,
    webhooks: Option<Vec<Webhook>>,
}

impl WebhookConfiguration {
    /// The operations that publish this bundle, if there is one, and this path in each webhook. Empty if they already
    /// are published.
    pub fn patch(&self, bundle: Option<&ByteString>, path: &str) -> Vec<Value> {
        let webhooks = self.webhooks.iter().flatten().enumerate();
        let operations: Vec<_> = webhooks
            .flat_map(|(index, webhook)| webhook.client_config.operations(index, bundle, path))
            .collect();
        if operations.is_empty() {
            return operations;
        }
        // The operations address webhooks by their index, so they must apply to this version.
        let mut patch = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": self.metadata.resource_version}),
        ];
        patch.extend(operations);
        patch
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    client_config: ClientConfig,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    ca_bundle: Option<ByteString>,
    service: Option<Service>,
    url: Option<String>,
}

impl ClientConfig {
    fn operations(&self, index: usize, bundle: Option<&ByteString>, path: &str) -> Vec<Value> {
        let parent = format!("/webhooks/{index}/clientConfig");
        let add =
            |key: &str, value: Value| json!({"op": "add", "path": format!("{parent}/{key}"), "value": value});
        let mut operations = Vec::new();
        if let Some(bundle) = bundle
            && self.ca_bundle.as_ref() != Some(bundle)
        {
            operations.push(add("caBundle", json!(bundle)));
        }
        match (&self.service, &self.url) {
            (Some(service), _) if service.path.as_deref() != Some(path) => {
                operations.push(add("service/path", json!(path)));
            }
            // The API server rejects a URL with a query, a fragment or a user.
            (None, Some(url)) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
                let host = rest.split('/').next().unwrap_or_default();
                let wanted = format!("{scheme}://{host}{path}");
                if *url != wanted {
                    operations.push(add("url", json!(wanted)));
                }
            }
            _ => {}
        }
        operations
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Service {
    path: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_adds_the_bundle_and_the_path_only_where_they_differ() {
        let bundle = ByteString(b"pem".to_vec());
        let operations = |config: Value, bundle: Option<&ByteString>| {
            let config: ClientConfig = serde_json::from_value(config).unwrap();
            let operations = config.operations(1, bundle, "/mutate/x");
            let texts = operations.iter().map(|operation| {
                assert_eq!(operation["op"], "add");
                format!("{} {}", operation["path"].as_str().unwrap(), operation["value"])
            });
            texts.collect::<Vec<_>>()
        };
        let service = "/webhooks/1/clientConfig/service/path \"/mutate/x\"";
        let ca = "/webhooks/1/clientConfig/caBundle \"cGVt\"";
        assert_eq!(
            operations(json!({"service": {"name": "a"}}), Some(&bundle)),
            [ca, service]
        );
        assert_eq!(
            operations(json!({"service": {"path": "/mutate"}}), None),
            [service]
        );
        for url in [
            "https://host:8443",
            "https://host:8443/",
            "https://host:8443/mutate",
        ] {
            let url = operations(json!({"url": url, "caBundle": "cGVt"}), Some(&bundle));
            assert_eq!(
                url,
                ["/webhooks/1/clientConfig/url \"https://host:8443/mutate/x\""]
            );
        }
        for published in [
            json!({"service": {"path": "/mutate/x"}, "caBundle": "cGVt"}),
            json!({"url": "https://[::1]/mutate/x", "caBundle": "cGVt"}),
        ] {
            assert!(operations(published.clone(), Some(&bundle)).is_empty());
            assert!(operations(published, None).is_empty());
        }
    }
}
