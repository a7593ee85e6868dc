//! `acr-pull-webhook check`: whether the API server calls the webhook, trusts its certificate and gets an answer.

use crate::{admission::ACCESS_TOKEN_ANNOTATION, foreign::Foreign, kubernetes, problem::Reason};
use kube::{
    Api, Resource,
    api::{ObjectMeta, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// No object has this name by chance.
const GENERATOR: &str = "acr-pull-webhook-check-no-such-generator";
const WEBHOOK: &str = "pods.acr-pull.dev";

#[derive(Clone, Debug, Resource, Serialize, Deserialize)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
struct Pod {
    metadata: ObjectMeta,
    spec: Value,
}

/// Asks for a Pod that only the webhook refuses, and only for one reason, by a dry run. An error is a sentence.
pub async fn run(namespace: &str) -> Result<(), String> {
    let client = kubernetes::client().await?;
    let pod = json!({
        "metadata": {"generateName": "acr-pull-webhook-check-", "annotations": {ACCESS_TOKEN_ANNOTATION: GENERATOR}},
        "spec": {"containers": [{"name": "check", "image": "check"}]},
    });
    let pod: Pod = serde_json::from_value(pod).map_err(|e| format!("the Pod: {e}"))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let answer = Api::<Pod>::namespaced(client, namespace)
        .create(&dry_run, &pod)
        .await;
    match answer {
        Ok(_) => Err(format!(
            "the API server has not asked the webhook about a Pod in namespace {namespace}: look at the \
             MutatingWebhookConfiguration, and whether its namespaceSelector leaves this namespace out"
        )),
        Err(kube::Error::Api(status)) if refused_by_us(&status.message) => Ok(()),
        Err(kube::Error::Api(status)) => Err(format!(
            "the API server gets no answer from the webhook: {}",
            Foreign::new(&status.message).at_most(4096)
        )),
        Err(error) => Err(format!("the API server was not reached: {error}")),
    }
}

fn refused_by_us(message: &str) -> bool {
    message.contains(&format!("admission webhook {WEBHOOK:?} denied the request"))
        && message.contains(Reason::GeneratorNotFound.as_str())
}
