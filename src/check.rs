//! The subcommand `check`: verifies that the API server calls the webhook, trusts its certificate and receives its
//! answer.

use crate::{
    start_error::StartError,
    {admission::ACCESS_TOKEN_ANNOTATION, kubernetes, problem::Reason, untrusted::UntrustedText},
};
use kube::{
    Api, Resource,
    api::{ObjectMeta, PostParams},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A name that no generator has by chance.
const MISSING_GENERATOR: &str = "acr-pull-webhook-check-no-such-generator";
const WEBHOOK: &str = "pods.acr-pull.dev";

#[derive(Clone, Debug, Resource, Serialize, Deserialize)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
struct Pod {
    metadata: ObjectMeta,
    spec: Value,
}

/// Sends a dry run of a Pod that only the webhook rejects, and only because its generator does not exist.
pub async fn run(namespace: &str) -> Result<(), StartError> {
    let client = kubernetes::client().await?;
    let pod = json!({
        "metadata": {"generateName": "acr-pull-webhook-check-", "annotations": {ACCESS_TOKEN_ANNOTATION: MISSING_GENERATOR}},
        "spec": {"containers": [{"name": "check", "image": "check"}]},
    });
    let pod: Pod = serde_json::from_value(pod).map_err(StartError::failed("the test Pod is invalid"))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let result = Api::<Pod>::namespaced(client, namespace)
        .create(&dry_run, &pod)
        .await;
    match result {
        Ok(_) => Err(StartError::Outcome(format!(
            "the API server did not call the webhook for a Pod in namespace {namespace}: check the \
             MutatingWebhookConfiguration, and whether its namespaceSelector excludes this namespace"
        ))),
        Err(kube::Error::Api(status)) if is_rejection_by_webhook(&status.message) => Ok(()),
        Err(kube::Error::Api(status)) => Err(StartError::Outcome(format!(
            "the API server did not receive the expected answer from the webhook: {}",
            UntrustedText::new(&status.message).at_most(4096)
        ))),
        Err(error) => Err(StartError::failed("cannot reach the API server")(error)),
    }
}

fn is_rejection_by_webhook(message: &str) -> bool {
    message.contains(&format!("admission webhook {WEBHOOK:?} denied the request"))
        && message.contains(Reason::GeneratorNotFound.as_str())
}
