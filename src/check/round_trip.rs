//! A dry run of a Pod proves the round trip: the API server calls the webhook, trusts its certificate and receives its
//! answer.

use super::{
    api::{ApiServer, is_authorization},
    reason::Reason,
    report::Finding,
    target::{ANNOTATED_PODS, LABELLED_NAMESPACES, Target},
};
use crate::{
    admission::ACCESS_TOKEN_ANNOTATION,
    kubernetes::{CallError, is_namespace_not_found},
    problem,
    untrusted::UntrustedText,
};
use kube::core::Status;
use serde_json::{Value, json};

const CHECK: &str = "round trip";
/// A name that no generator has by chance.
const MISSING_GENERATOR: &str = "acr-pull-webhook-check-no-such-generator";

/// What happened to the dry run of a Pod.
#[derive(Debug)]
pub enum Outcome {
    /// The Pod, as the API server would store it.
    Admitted(Box<Value>),
    /// The webhook refused the Pod with this message.
    RefusedByWebhook(String),
    /// The API server could not call the webhook, for this reason.
    WebhookUnreachable(String),
    /// Another webhook, a policy, a quota or the schema refused the Pod.
    RefusedByAnother(String),
    /// The caller may not create Pods there.
    NotPermitted(String),
    /// The namespace does not exist.
    NamespaceNotFound,
    /// The API server gave no useful answer.
    ApiServerUnreachable(String),
}

/// Creates a Pod as a dry run.
pub async fn dry_run(api: &ApiServer, namespace: &str, pod: &Value) -> Outcome {
    let path = format!("/api/v1/namespaces/{namespace}/pods?dryRun=All");
    match api.post(&path, pod).await {
        Ok(pod) => Outcome::Admitted(Box::new(pod)),
        Err(CallError::Api(status)) => Outcome::of(&status),
        Err(error) => Outcome::ApiServerUnreachable(error.to_string()),
    }
}

impl Outcome {
    fn of(status: &Status) -> Self {
        let message = status.message.clone();
        let by = |entry: &str, what: &str| message.contains(&format!("{what} {entry:?}"));
        let either = |what: &str| {
            [ANNOTATED_PODS, LABELLED_NAMESPACES]
                .iter()
                .any(|entry| by(entry, what))
        };
        if either("admission webhook") {
            return Self::RefusedByWebhook(message);
        }
        if either("failed calling webhook") {
            return Self::WebhookUnreachable(message);
        }
        if is_namespace_not_found(status) {
            return Self::NamespaceNotFound;
        }
        if ["admission webhook", "failed calling webhook"]
            .iter()
            .any(|other| message.contains(other))
        {
            return Self::RefusedByAnother(message);
        }
        if is_authorization(status) {
            return Self::NotPermitted(message);
        }
        match status.code {
            400..500 if status.code != 429 => Self::RefusedByAnother(message),
            _ => Self::ApiServerUnreachable(message),
        }
    }
}

/// The Pod that only the webhook refuses, and only because its generator does not exist.
fn test_pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "acr-pull-webhook-check-",
            "annotations": {ACCESS_TOKEN_ANNOTATION: MISSING_GENERATOR},
        },
        "spec": {"containers": [{"name": "check", "image": "check"}]},
    })
}

/// Sends the test Pod to a namespace.
pub async fn check(api: &ApiServer, target: &Target, namespace: &str) -> Vec<Finding> {
    vec![finding(
        dry_run(api, namespace, &test_pod()).await,
        target,
        namespace,
    )]
}

fn finding(outcome: Outcome, target: &Target, namespace: &str) -> Finding {
    let own = &target.namespace;
    match outcome {
        Outcome::RefusedByWebhook(message)
            if message.contains(problem::Reason::GeneratorNotFound.as_str()) =>
        {
            Finding::ok(
                CHECK,
                format!("the API server calls the webhook for Pods in namespace {namespace}"),
            )
        }
        Outcome::RefusedByWebhook(message) => {
            let message = format!(
                "the webhook refused the test Pod: {}",
                UntrustedText::new(&message).at_most(1024)
            );
            Finding::failed(CHECK, Reason::NotCalled, message)
        }
        Outcome::Admitted(_) => {
            let message = format!(
                "the API server did not call the webhook for a Pod in namespace {namespace}: the registration is \
                 missing, or \
                 its namespaceSelector excludes the namespace"
            );
            let command = format!("kubectl get namespace {namespace} --show-labels");
            Finding::failed(CHECK, Reason::NotCalled, message).command(command)
        }
        Outcome::WebhookUnreachable(message) => {
            let message = format!(
                "the API server could not call the webhook: {}",
                UntrustedText::new(without_path(&message)).at_most(1024)
            );
            let command = format!("kubectl get pods,endpointslices --namespace {own}");
            Finding::failed(CHECK, Reason::WebhookUnreachable, message).command(command)
        }
        outcome => could_not_send(outcome, namespace),
    }
}

/// The finding about a dry run that ended before the webhook was called. It says nothing about the webhook.
pub fn could_not_send(outcome: Outcome, namespace: &str) -> Finding {
    match outcome {
        Outcome::NotPermitted(message) => {
            let message = format!(
                "you may not create Pods in namespace {namespace}, not even as a dry run: {}; name another namespace \
                 by --namespace",
                UntrustedText::new(&message)
            );
            Finding::unknown(CHECK, Reason::NotPermitted, message)
        }
        Outcome::NamespaceNotFound => {
            let message = format!("namespace {namespace} does not exist; create it, or correct --namespace");
            Finding::failed(CHECK, Reason::NamespaceNotFound, message)
                .command(format!("kubectl create namespace {namespace}"))
        }
        Outcome::RefusedByAnother(message) => {
            let message = format!(
                "another webhook, policy or quota refused the test Pod in namespace {namespace}, so nothing is known \
                 about this webhook: {}; name another namespace by --namespace",
                UntrustedText::new(&message)
            );
            Finding::unknown(CHECK, Reason::RefusedByAnother, message)
        }
        Outcome::ApiServerUnreachable(cause)
        | Outcome::WebhookUnreachable(cause)
        | Outcome::RefusedByWebhook(cause) => {
            let message = format!(
                "the API server did not answer: {}",
                UntrustedText::new(without_path(&cause))
            );
            Finding::unknown(CHECK, Reason::ApiServerUnreachable, message)
        }
        Outcome::Admitted(_) => Finding::ok(CHECK, "the Pod is admitted"),
    }
}

/// The API server's message after the URL, which contains the secret path.
pub fn without_path(message: &str) -> &str {
    match message.rsplit_once("/mutate/") {
        Some((_, rest)) => rest.split_once(": ").map_or("", |(_, cause)| cause),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::api::Unread;

    fn status(code: u16, message: &str) -> Status {
        serde_json::from_value(json!({"status": "Failure", "code": code, "message": message})).unwrap()
    }

    fn found(code: u16, message: &str) -> (Option<&'static str>, String, String) {
        let target = Target {
            namespace: "w".to_owned(),
            registrations: Ok(Vec::new()),
            deployment: Err(Unread::NotFound),
        };
        let finding = finding(Outcome::of(&status(code, message)), &target, "ns");
        (finding.reason, format!("{:?}", finding.status), finding.message)
    }

    #[test]
    fn each_end_of_the_dry_run_has_its_own_reason() {
        let called = r#"admission webhook "pods.acr-pull.dev" denied the request: GeneratorNotFound: no"#;
        assert_eq!(found(400, called).0, None);
        let other = r#"admission webhook "mutate.kyverno.svc" denied the request: no"#;
        let (reason, status, message) = found(400, other);
        assert_eq!(
            (reason, status.as_str()),
            (Some("RefusedByAnother"), "Unknown"),
            "{message}"
        );
        let broken =
            r#"Internal error occurred: failed calling webhook "other.example.com": failed to call webhook"#;
        assert_eq!(found(500, broken).0, Some("RefusedByAnother"));
        let rights = r#"pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the namespace "ns""#;
        let (reason, status, message) = found(403, rights);
        assert_eq!((reason, status.as_str()), (Some("NotPermitted"), "Unknown"));
        assert!(
            message.starts_with("you may not create Pods in namespace ns"),
            "{message}"
        );
        let quota = r#"pods "x" is forbidden: exceeded quota: pods, requested: pods=1"#;
        assert_eq!(found(403, quota).0, Some("RefusedByAnother"));
        assert_eq!(
            found(500, "etcdserver: request timed out").0,
            Some("ApiServerUnreachable")
        );
    }

    #[test]
    fn the_secret_path_in_the_api_servers_message_is_not_printed() {
        let message = r#"Internal error occurred: failed calling webhook "pods.acr-pull.dev": failed to call webhook: Post "https://w.w.svc:443/mutate/0123456789?timeout=10s": no endpoints available for service "w""#;
        let (reason, _, message) = found(500, message);
        assert_eq!(reason, Some("WebhookUnreachable"));
        assert!(
            message.ends_with(r#"no endpoints available for service "w""#),
            "{message}"
        );
        assert!(!message.contains("0123456789"), "{message}");
    }
}
