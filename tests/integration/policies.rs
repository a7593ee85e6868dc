//! What a thief of the webhook's token can do with it, asked of a real API server with all manifests of `deploy/`.

mod attempt;
mod permitted;
mod registration;
mod rights;
mod secrets;
mod tokens;

use attempt::{Attempt, post, pull_secret, put, registration_patch, secret_path, send, token, token_path};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Namespace, Secret, ServiceAccount},
};
use kube::{Api, Client};
use serde_json::json;
use testkit::{
    control_plane::{self, ControlPlane, NAMESPACE, apply},
    eventually,
    objects::from,
};
use tokio::sync::OnceCell;

/// The namespace of the tests.
const HERE: &str = "policies";
/// A docker config and a password, in base64. No answer may contain them.
const CONFIG: &str = "eyJhdXRocyI6e319";
const VALUE: &str = "aHVudGVyMg==";

/// A client with the webhook's token, on an API server with objects that are worth stealing.
async fn thief() -> Client {
    static READY: OnceCell<()> = OnceCell::const_new();
    let cluster = control_plane::for_stolen_credentials();
    READY.get_or_init(prepare).await;
    cluster.with_webhooks_token(None).await
}

/// Creates the registration, Secrets of others, and waits for the policies.
async fn prepare() {
    let cluster = control_plane::for_stolen_credentials();
    let admin = cluster.admin().await;
    create_registrations(cluster, &admin).await;
    create_objects(&admin).await;
    let thief = cluster.with_webhooks_token(None).await;
    eventually("the policies are in force", async || {
        // The first requests may precede the policies, so they are dry runs.
        let path = format!("{}?dryRun=All", secret_path(HERE, "acr-pull-foreign"));
        let probes: [Attempt; 3] = [
            put("", path, pull_secret("acr-pull-foreign")),
            post("", token_path(), token(&json!({}))),
            registration_patch(
                "",
                &json!([{"op": "remove", "path": "/webhooks/0/matchConditions"}]),
            ),
        ];
        for probe in probes {
            if !send(&thief, &probe)
                .await
                .err()?
                .message
                .contains("AdmissionPolicy")
            {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// Registers the webhook with a Service and with a URL, for no namespace, and a webhook of another owner.
async fn create_registrations(cluster: &ControlPlane, admin: &Client) {
    let mut registration = cluster.prepared().await.registration.clone();
    for hook in registration.webhooks.as_mut().unwrap() {
        let selector = hook.namespace_selector.get_or_insert_default();
        selector.match_labels = Some([("test".to_owned(), "nobody".to_owned())].into());
    }
    let by_url = &mut registration.webhooks.as_mut().unwrap()[1].client_config;
    by_url.service = None;
    by_url.url = Some("https://webhook.example.com:8443/mutate".to_owned());
    apply(&Api::all(admin.clone()), &registration).await;
    let mut foreign = registration;
    foreign.metadata.name = Some("policies-foreign".to_owned());
    apply(&Api::<MutatingWebhookConfiguration>::all(admin.clone()), &foreign).await;
}

/// Creates a service account and Secrets of other owners.
async fn create_objects(admin: &Client) {
    let namespace: Namespace = from(json!({"metadata": {"name": HERE}}));
    apply(&Api::all(admin.clone()), &namespace).await;
    let account: ServiceAccount = from(json!({"metadata": {"name": "victim"}}));
    apply(&Api::namespaced(admin.clone(), HERE), &account).await;
    let opaque = json!({"type": "Opaque", "data": {"password": VALUE}});
    let config = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": CONFIG}});
    for (namespace, name, secret) in [
        (HERE, "foreign", &opaque),
        (HERE, "acr-pull-foreign", &config),
        (NAMESPACE, "foreign", &opaque),
    ] {
        let mut secret = secret.clone();
        secret["metadata"] = json!({"name": name});
        let secret: Secret = from(secret);
        apply(&Api::namespaced(admin.clone(), namespace), &secret).await;
    }
}

async fn cluster_registration() -> MutatingWebhookConfiguration {
    let admin = control_plane::for_stolen_credentials().admin().await;
    Api::all(admin).get(NAMESPACE).await.unwrap()
}
