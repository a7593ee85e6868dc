//! Requests with the webhook's token, and what they must be answered with.

use super::{CONFIG, HERE, VALUE};
use http::Request;
use kube::{Client, core::Status};
use serde_json::{Value, json};
use testkit::control_plane::NAMESPACE;

/// One request: its purpose, method, path, content type and body.
pub type Attempt = (&'static str, &'static str, String, &'static str, Value);

/// Sends the request of an attempt.
pub async fn send(
    client: &Client,
    (_, method, path, content, body): &Attempt,
) -> Result<String, Box<Status>> {
    let request = Request::builder()
        .method(*method)
        .uri(path)
        .header("Content-Type", *content)
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    match client.request_text(request).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

/// Asserts that each attempt is answered by 403 without the contents of a Secret.
pub async fn assert_denied(client: &Client, attempts: Vec<Attempt>) {
    let mut wrong = Vec::new();
    for attempt in attempts {
        match send(client, &attempt).await {
            Ok(_) => wrong.push(format!("{}: succeeded", attempt.0)),
            Err(status) if status.code != 403 => {
                wrong.push(format!("{}: {} {}", attempt.0, status.code, status.message));
            }
            Err(status) if status.message.contains(VALUE) || status.message.contains(CONFIG) => {
                wrong.push(format!("{}: reveals the value", attempt.0));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "not denied:\n{}", wrong.join("\n"));
}

/// Asserts that an attempt succeeds, and returns the answer.
pub async fn assert_allowed(client: &Client, attempt: Attempt) -> Value {
    match send(client, &attempt).await {
        Ok(answer) => serde_json::from_str(&answer).unwrap(),
        Err(status) => panic!("{}: {} {}", attempt.0, status.code, status.message),
    }
}

pub fn get(what: &'static str, path: impl Into<String>) -> Attempt {
    (what, "GET", path.into(), "application/json", json!({}))
}

pub fn delete(what: &'static str, path: String) -> Attempt {
    (what, "DELETE", path, "application/json", json!({}))
}

pub fn post(what: &'static str, path: impl Into<String>, body: Value) -> Attempt {
    (what, "POST", path.into(), "application/json", body)
}

pub fn put(what: &'static str, path: String, body: Value) -> Attempt {
    (what, "PUT", path, "application/json", body)
}

pub fn merge(what: &'static str, path: impl Into<String>, body: Value) -> Attempt {
    (what, "PATCH", path.into(), "application/merge-patch+json", body)
}

pub fn server_side_apply(what: &'static str, path: String, body: Value) -> Attempt {
    (what, "PATCH", path, "application/apply-patch+yaml", body)
}

pub fn json_patch(what: &'static str, path: String, body: Value) -> Attempt {
    (what, "PATCH", path, "application/json-patch+json", body)
}

pub fn secret_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

/// The path of a server-side apply with the webhook's field manager.
pub fn apply_path(namespace: &str, name: &str, query: &str) -> String {
    format!(
        "{}?fieldManager=acr-pull-webhook&{query}",
        secret_path(namespace, name)
    )
}

pub fn token_path() -> String {
    token_path_of(HERE, "victim")
}

pub fn token_path_of(namespace: &str, account: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token")
}

pub fn token(spec: &Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

pub fn owner(name: &str, uid: &str) -> Value {
    let (group, kind) = ("acr-pull.dev/v1alpha1", "ACRPullSecret");
    json!({"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// A pull Secret as the webhook writes it.
pub fn pull_secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "acr-pull-webhook"},
            "ownerReferences": [owner(name, "3f0c51a7-0000-0000-0000-000000000000")],
        },
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": CONFIG},
    })
}

/// The object with another value at one place.
pub fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

pub fn certificates(kind: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "acr-pull-webhook-certificates"},
        "type": kind,
        "stringData": {"tls.crt": "x", "tls.key": "x"},
    })
}

pub fn registration_path(name: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
}

/// Another URL in the webhook that has a URL.
pub fn url_patch(what: &'static str, url: &str) -> Attempt {
    let patch = json!([{"op": "replace", "path": "/webhooks/1/clientConfig/url", "value": url}]);
    json_patch(what, registration_path(NAMESPACE), patch)
}

pub fn registration_patch(what: &'static str, patch: &Value) -> Attempt {
    json_patch(what, registration_path(NAMESPACE), patch.clone())
}
