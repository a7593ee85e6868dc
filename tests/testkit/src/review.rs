//! Admission reviews as an API server sends them.

use crate::{env::TestEnv, speed};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::{fmt::Display, time::Duration};

/// The review that the API server would send for the creation of a Pod.
pub fn review(namespace: impl Display, pod: &Pod) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "00000000-0000-0000-0000-00000000feed",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": namespace.to_string(),
            "operation": "CREATE",
            "object": pod,
        },
    })
}

/// Sends a review and returns the answer.
pub async fn post(env: &TestEnv, review: &Value) -> Value {
    post_within(env, review, 10).await
}

/// The same as an API server whose time-out is this many seconds.
pub async fn post_within(env: &TestEnv, review: &Value, seconds: u64) -> Value {
    let url = format!("{}?timeout={seconds}s", env.webhook.url());
    env.webhook
        .client()
        .post(url)
        .timeout(Duration::from_secs(seconds))
        .json(review)
        .send()
        .await
        .expect("an answer within the API server's time-out")
        .json()
        .await
        .unwrap()
}

/// A short time-out of an API server in seconds, which is shorter than the 10 s that one hop of the webhook may take.
pub fn short_timeout() -> u64 {
    speed::seconds(3).as_secs().min(9)
}
