//! Changes of registrations.

use super::{
    HERE,
    attempt::{
        Attempt, assert_denied, delete, merge, owner, post, registration_patch, registration_path, send,
        url_patch,
    },
    cluster_registration, thief,
};
use serde_json::{Value, json};
use testkit::control_plane::NAMESPACE;

fn replace(path: &str, value: Value) -> Value {
    json!([{"op": "replace", "path": path, "value": value}])
}

/// Attempts to receive other requests, or requests at another place.
fn redirections() -> Vec<Attempt> {
    let all = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]);
    let service = |field: &str, value| replace(&format!("/webhooks/0/clientConfig/service/{field}"), value);
    let url = replace(
        "/webhooks/0/clientConfig",
        json!({"url": "https://thief.example.com"}),
    );
    vec![
        registration_patch("its rules", &replace("/webhooks/0/rules", all)),
        registration_patch(
            "its conditions",
            &json!([{"op": "remove", "path": "/webhooks/0/matchConditions"}]),
        ),
        registration_patch(
            "its namespaces",
            &json!([{"op": "remove", "path": "/webhooks/1/namespaceSelector"}]),
        ),
        registration_patch("its Service's namespace", &service("namespace", json!(HERE))),
        registration_patch("its Service's name", &service("name", json!("thief"))),
        registration_patch("its Service's port", &service("port", json!(8443))),
        url_patch("another host", "https://thief.example.com:8443/mutate"),
        url_patch("another port", "https://webhook.example.com/mutate"),
        url_patch(
            "a subdomain of its host",
            "https://x.webhook.example.com:8443/mutate",
        ),
        registration_patch("a URL in place of its Service", &url),
    ]
}

/// Attempts to change other fields, and to change or create other registrations.
fn other_changes() -> Vec<Attempt> {
    let hook = json!({"name": "more.acr-pull.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://thief.example.com"}});
    let registration = json!({"metadata": {"name": "policies-more"}, "webhooks": [hook]});
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let ignore = replace("/webhooks/0/failurePolicy", json!("Ignore"));
    vec![
        registration_patch("its failure policy", &ignore),
        registration_patch("one more webhook", &add("/webhooks/-", hook.clone())),
        registration_patch(
            "one webhook less",
            &json!([{"op": "remove", "path": "/webhooks/1"}]),
        ),
        registration_patch("another webhook", &replace("/webhooks/1", hook)),
        registration_patch("a finalizer", &add("/metadata/finalizers", json!(["a/b"]))),
        registration_patch(
            "an owner",
            &add("/metadata/ownerReferences", json!([owner("x", "x")])),
        ),
        registration_patch("an annotation", &add("/metadata/annotations", json!({"a": "b"}))),
        merge(
            "another registration",
            registration_path("policies-foreign"),
            json!({}),
        ),
        post(
            "one more registration",
            registration_path("").trim_end_matches('/'),
            registration,
        ),
        delete("its deletion", registration_path(NAMESPACE)),
    ]
}

#[testkit::test]
async fn only_authority_and_path_of_its_registration_can_be_changed() {
    let thief = thief().await;
    assert_denied(&thief, redirections()).await;
    assert_denied(&thief, other_changes()).await;
}

/// The API server itself refuses two webhooks with one name, whatever a policy evaluates for such a list.
#[testkit::test]
async fn one_webhook_of_the_registration_cannot_replace_the_other() {
    let thief = thief().await;
    let registered = serde_json::to_value(cluster_registration().await).unwrap();
    let twice = json!([registered["webhooks"][1], registered["webhooks"][1]]);
    let attempt = registration_patch("one webhook twice", &replace("/webhooks", twice));
    let refused = send(&thief, &attempt).await.unwrap_err();
    assert!(matches!(refused.code, 403 | 422), "{}", refused.message);
}
