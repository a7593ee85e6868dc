//! Mutating admission webhooks in place of the program and of policy engines. They record each call.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::{LocalObjectReference, Pod};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use testkit::{
    https_server::HttpsServer,
    objects::{ANNOTATION, from, pull_secret_names},
};

/// A call of a webhook, with the Pod as the webhook receives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    pub webhook: String,
    pub annotation: String,
    pub image: String,
    pub secrets: Vec<String>,
}

/// What a webhook changes in a Pod.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    None,
    Annotation(&'static str),
    Image(&'static str),
    Secret(&'static str),
}

/// The webhooks of one test. They stop with this value.
pub struct Webhooks {
    server: HttpsServer,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Webhooks {
    pub async fn start() -> Self {
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let router = Router::new()
            .route("/{webhook}/{field}/{*value}", post(review))
            .with_state(calls.clone());
        Self {
            server: HttpsServer::start(router).await,
            calls,
        }
    }

    /// The `clientConfig` of a webhook.
    pub fn client_config(&self, webhook: &str, change: Change) -> Value {
        let (field, value) = match change {
            Change::None => ("none", "none"),
            Change::Annotation(value) => ("annotation", value),
            Change::Image(value) => ("image", value),
            Change::Secret(value) => ("secret", value),
        };
        self.server.client_config(&format!("/{webhook}/{field}/{value}"))
    }

    /// The calls since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

/// Answers a review.
async fn review(
    State(calls): State<Arc<Mutex<Vec<Call>>>>,
    Path((webhook, field, value)): Path<(String, String, String)>,
    body: Bytes,
) -> Response {
    let review: Value = serde_json::from_slice(&body).unwrap();
    let pod: Pod = from(review["request"]["object"].clone());
    let patch = changes(&pod, &field, &value).to_string();
    calls.lock().unwrap().push(Call {
        webhook,
        annotation: pod.annotations().get(ANNOTATION).cloned().unwrap_or_default(),
        image: image(&pod).to_owned(),
        secrets: pull_secret_names(&pod),
    });
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"],
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch),
        },
    });
    ([("content-type", "application/json")], answer.to_string()).into_response()
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_ref().unwrap().containers[0].image.as_deref().unwrap()
}

/// The JSON patch of a webhook. A second call finds the change and does not repeat it.
fn changes(pod: &Pod, field: &str, value: &str) -> Value {
    let mut secrets = pod
        .spec
        .as_ref()
        .unwrap()
        .image_pull_secrets
        .clone()
        .unwrap_or_default();
    match field {
        "annotation" if pod.annotations().get(ANNOTATION).map(String::as_str) != Some(value) => {
            let mut annotations = pod.annotations().clone();
            annotations.insert(ANNOTATION.to_owned(), value.to_owned());
            json!([{"op": "add", "path": "/metadata/annotations", "value": annotations}])
        }
        "image" if image(pod) != value => {
            json!([{"op": "replace", "path": "/spec/containers/0/image", "value": value}])
        }
        "secret" if !secrets.iter().any(|secret| secret.name == value) => {
            secrets.push(LocalObjectReference {
                name: value.to_owned(),
            });
            json!([{"op": "add", "path": "/spec/imagePullSecrets", "value": secrets}])
        }
        _ => json!([]),
    }
}
