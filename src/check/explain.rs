//! The subcommand `explain`: what the webhook does with a Pod, and why.

mod request;
mod subject;

pub use subject::Subject;

use super::{
    api::{Unread, items, text},
    pull::{Environment, Pull, images, state},
    reason::Reason,
    report::Finding,
    round_trip::{self, Outcome},
    selector,
    target::{ANNOTATED_PODS, LABELLED_NAMESPACES},
};
use crate::{
    live_pod::MIRROR_POD_ANNOTATION, names::ObjectName, pull_secret::PullSecretRequest,
    untrusted::UntrustedText,
};
use request::{Source, injection, references};
use serde_json::Value;

/// Explains one object.
pub async fn explain(environment: &Environment<'_>, subject: &Subject) -> Vec<Finding> {
    let namespace = &subject.namespace;
    let found = match environment
        .api
        .get(&format!("/api/v1/namespaces/{namespace}"))
        .await
    {
        Ok(found) => found,
        Err(Unread::NotFound) => {
            return vec![round_trip::could_not_send(Outcome::NamespaceNotFound, namespace)];
        }
        // Without this permission, only the default of the Namespace is unknown.
        Err(_) => Value::default(),
    };
    let pod = subject.pod();
    if !pod["metadata"]["annotations"][MIRROR_POD_ANNOTATION].is_null() {
        let message = "it is the mirror of a static Pod, which cannot reference Secrets";
        return vec![Finding::warning("request", Reason::NotRequested, message)];
    }
    let (source, references) = match references(subject, &found) {
        Ok(requested) => requested,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![sent(environment, source, &found)];
    findings.extend(injection(subject));
    let account = ObjectName::new(text(&pod, "/spec/serviceAccountName"));
    let mut plans = Vec::new();
    for reference in references {
        let pull = Pull {
            environment,
            request: PullSecretRequest::new(namespace, reference, account.as_ref()),
            image: None,
        };
        if let Some(plan) = pull.resolve(&mut findings).await {
            findings.extend(state(environment.api, &plan).await);
            plans.push(plan);
        }
    }
    findings.extend(images(&pod, &plans));
    if !subject.exists {
        findings.extend(dry_run(environment, subject, &pod).await);
    }
    findings.extend(waiting(&subject.object));
    findings
}

/// Whether the API server sends the Pod to the webhook, and by which entry.
fn sent(environment: &Environment<'_>, source: Source, namespace: &Value) -> Finding {
    const CHECK: &str = "registration";
    let (entry_name, why) = match source {
        Source::Annotation => (ANNOTATED_PODS, "its annotation"),
        Source::Namespace => (LABELLED_NAMESPACES, "the label of its Namespace"),
    };
    let entry = match (&environment.target.registrations, environment.entry(entry_name)) {
        (Err(unread), _) => return unread.finding(CHECK, "MutatingWebhookConfigurations"),
        (Ok(_), Some(entry)) => entry,
        (Ok(_), None) => {
            let message =
                format!("no registration has the entry {entry_name}, so the Pod is not sent to the webhook");
            return Finding::failed(CHECK, Reason::RegistrationNotFound, message)
                .command(environment.target.reapply("webhook.yaml"));
        }
    };
    match selector::unmet(entry, namespace) {
        Some(unmet) => {
            let message = format!(
                "the Pod is not sent to the webhook: the entry {entry_name} selects only Namespaces {}",
                unmet.requirement
            );
            Finding::failed(CHECK, Reason::NamespaceNotSelected, message)
        }
        None => Finding::ok(
            CHECK,
            format!("{why} makes the entry {entry_name} send the Pod to the webhook"),
        ),
    }
}

/// What the API server does with the Pod of a file.
async fn dry_run(environment: &Environment<'_>, subject: &Subject, pod: &Value) -> Option<Finding> {
    const CHECK: &str = "dry run";
    let outcome = round_trip::dry_run(environment.api, &subject.namespace, pod).await;
    Some(match outcome {
        Outcome::Admitted(pod) => {
            let secrets = items(&pod, "/spec/imagePullSecrets")
                .iter()
                .map(|secret| self::text(secret, "/name"));
            let secrets: Vec<_> = secrets.collect();
            if secrets.is_empty() {
                let message = "the API server would create the Pod without a pull secret";
                Finding::failed(CHECK, Reason::NotCalled, message)
            } else {
                Finding::ok(
                    CHECK,
                    format!("the API server would create the Pod with {}", secrets.join(", ")),
                )
            }
        }
        Outcome::RefusedByWebhook(message) => {
            let message = format!(
                "the webhook refuses the Pod: {}",
                UntrustedText::new(&message).at_most(1024)
            );
            Finding::failed(CHECK, Reason::RefusedByWebhook, message)
        }
        Outcome::WebhookUnreachable(message) => {
            let cause = UntrustedText::new(round_trip::without_path(&message))
                .at_most(1024)
                .to_string();
            let message = format!("the API server could not call the webhook: {cause}");
            Finding::failed(CHECK, Reason::WebhookUnreachable, message)
        }
        outcome => round_trip::could_not_send(outcome, &subject.namespace),
    })
}

/// What the kubelet reports about the images of a Pod.
fn waiting(pod: &Value) -> Vec<Finding> {
    let lists = ["/status/initContainerStatuses", "/status/containerStatuses"].into_iter();
    let statuses = lists.flat_map(|list| items(pod, list));
    let finding = |status: &Value| {
        let reason = text(status, "/state/waiting/reason");
        matches!(reason, "ErrImagePull" | "ImagePullBackOff").then(|| {
            let message = format!(
                "container {} waits with {reason}: {}",
                text(status, "/name"),
                UntrustedText::new(text(status, "/state/waiting/message"))
            );
            Finding::failed("kubelet", Reason::ImageForbidden, message)
        })
    };
    statuses.filter_map(finding).collect()
}
