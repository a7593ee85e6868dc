//! What a Pod requests: the references of its annotation or of its Namespace, or why it requests nothing.

use super::subject::{Kind, Subject};
use crate::{
    admission::{
        ACCESS_TOKEN_ANNOTATION, INJECTED_LABEL, PULL_SECRETS_ANNOTATION, parse_default_reference,
        parse_references,
    },
    check::{
        api::{metadata_entry, name},
        reason::Reason,
        report::Finding,
    },
    generator::{ALLOWED_NAMESPACES, DEFAULT_MODE_LABEL},
    reference::Reference,
    untrusted::UntrustedText,
};
use serde_json::Value;
use strsim::osa_distance;

const CHECK: &str = "request";
/// Keys at this distance from the right one are probably misspelt.
const MAX_DISTANCE: usize = 4;
/// Other keys of the webhook.
const OTHER_KEYS: [&str; 4] = [
    INJECTED_LABEL,
    PULL_SECRETS_ANNOTATION,
    DEFAULT_MODE_LABEL,
    ALLOWED_NAMESPACES,
];

/// Where the references come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The annotation of the Pod.
    Annotation,
    /// The label of the Namespace.
    Namespace,
}

/// The references of the Pod, or the finding that explains why there are none.
pub fn references(subject: &Subject, namespace: &Value) -> Result<(Source, Vec<Reference>), Finding> {
    let pod = subject.pod();
    if let Some(annotation) = metadata_entry(&pod, "annotations", ACCESS_TOKEN_ANNOTATION) {
        let references = parse_references(annotation).map_err(|problem| Finding::problem(CHECK, &problem))?;
        if references.is_empty() {
            let message =
                format!("annotation {ACCESS_TOKEN_ANNOTATION} of the Pod is none, so it gets no pull secret");
            return Err(Finding::warning(CHECK, Reason::NotRequested, message));
        }
        return Ok((Source::Annotation, references));
    }
    if let Some(label) = metadata_entry(namespace, "labels", ACCESS_TOKEN_ANNOTATION) {
        let reference =
            parse_default_reference(label).map_err(|problem| Finding::problem(CHECK, &problem))?;
        if let Some(reference) = reference {
            return Ok((Source::Namespace, vec![reference]));
        }
    }
    let misplaced = misplaced(subject).or_else(|| misspelt(subject, &pod));
    Err(misplaced.or_else(|| misplaced_default(namespace)).unwrap_or_else(|| {
        let message = format!(
            "neither the Pod has the annotation {ACCESS_TOKEN_ANNOTATION}, nor its Namespace {} the label",
            name(namespace)
        );
        let command = annotate(subject, "GENERATOR");
        Finding::failed(CHECK, Reason::NotRequested, message).commands(command)
    }))
}

/// The annotation of the workload, which must be on its Pod template.
fn misplaced(subject: &Subject) -> Option<Finding> {
    let mut above = subject.above_template();
    let (kind, value) = above.find_map(|(kind, object)| {
        Some((
            kind,
            metadata_entry(object, "annotations", ACCESS_TOKEN_ANNOTATION)?.to_owned(),
        ))
    })?;
    let Kind {
        name: kind, template, ..
    } = kind;
    let message = format!(
        "the annotation {ACCESS_TOKEN_ANNOTATION} is on the {kind}; Pods inherit only the annotations in {}",
        format!("{template}/metadata/annotations")
            .trim_start_matches('/')
            .replace('/', ".")
    );
    Some(Finding::failed(CHECK, Reason::AnnotationOnWorkload, message).commands(annotate(subject, &value)))
}

/// A key of the Pod that resembles the annotation.
fn misspelt(subject: &Subject, pod: &Value) -> Option<Finding> {
    for field in ["annotations", "labels"] {
        for (key, value) in pod["metadata"][field].as_object().into_iter().flatten() {
            let is_label = field == "labels" && key == ACCESS_TOKEN_ANNOTATION;
            if !is_label && !resembles(key) {
                continue;
            }
            let kind = if field == "labels" { "label" } else { "annotation" };
            let message = format!(
                "the Pod has the {kind} {}; the webhook reads the annotation {ACCESS_TOKEN_ANNOTATION}",
                UntrustedText::quoted(key)
            );
            let finding = Finding::failed(CHECK, Reason::AnnotationMisspelt, message);
            return Some(finding.commands(annotate(subject, value.as_str().unwrap_or_default())));
        }
    }
    None
}

/// The annotation of the Namespace, whose default must be a label.
fn misplaced_default(namespace: &Value) -> Option<Finding> {
    let value = metadata_entry(namespace, "annotations", ACCESS_TOKEN_ANNOTATION)?;
    let namespace = name(namespace);
    let message = format!(
        "Namespace {namespace} has the annotation {ACCESS_TOKEN_ANNOTATION}; the default of a Namespace is a label"
    );
    let finding = Finding::failed(CHECK, Reason::AnnotationMisspelt, message);
    let value = value.replace('/', ".");
    let is_reference = matches!(parse_default_reference(&value), Ok(Some(_)));
    let value = if is_reference { value.as_str() } else { "GENERATOR" };
    Some(finding.command(format!(
        "kubectl label namespace {namespace} {ACCESS_TOKEN_ANNOTATION}={value}"
    )))
}

fn resembles(key: &str) -> bool {
    if key == ACCESS_TOKEN_ANNOTATION || OTHER_KEYS.contains(&key) {
        return false;
    }
    let key = key.to_ascii_lowercase();
    let suffix = |key: &str| {
        key.rsplit('/')
            .next()
            .unwrap_or_default()
            .replace(['-', '_', '.'], "")
    };
    osa_distance(&key, ACCESS_TOKEN_ANNOTATION) <= MAX_DISTANCE
        || (key.contains("acr") && suffix(&key) == suffix(ACCESS_TOKEN_ANNOTATION))
}

/// The command that puts the annotation on the Pod template of the workload in the cluster.
fn annotate(subject: &Subject, value: &str) -> Option<String> {
    let (kind, workload) = subject.workload();
    // A Pod without a workload has to be created again, and a file has to be edited.
    if kind.template.is_empty() || !subject.exists {
        return None;
    }
    // The value becomes part of a command.
    let is_reference = parse_references(value).is_ok();
    let value = if is_reference { value } else { "GENERATOR" };
    let annotations =
        format!(r#"{{"metadata":{{"annotations":{{"{ACCESS_TOKEN_ANNOTATION}":"{value}"}}}}}}"#);
    let segments = kind.template.trim_start_matches('/').rsplit('/');
    let patch = segments.fold(annotations, |inner, segment| {
        format!(r#"{{"{segment}":{inner}}}"#)
    });
    Some(format!(
        "kubectl patch {} --namespace {} {workload} --type merge --patch '{patch}'",
        kind.singular(),
        subject.namespace
    ))
}

/// Whether a Pod that exists was patched by the webhook.
pub fn injection(subject: &Subject) -> Option<Finding> {
    const CHECK: &str = "admission";
    if !subject.exists || !subject.kind.template.is_empty() {
        return None;
    }
    let pod = &subject.object;
    if metadata_entry(pod, "labels", INJECTED_LABEL) == Some("true") {
        let names = metadata_entry(pod, "annotations", PULL_SECRETS_ANNOTATION).unwrap_or_default();
        return Some(Finding::ok(
            CHECK,
            format!("the webhook added {}", UntrustedText::new(names)),
        ));
    }
    let message = "the Pod was created without the webhook: before the annotation or the registration existed, or during \
                   an outage with failurePolicy Ignore; create it again";
    let finding = Finding::failed(CHECK, Reason::NotInjected, message);
    let namespace = &subject.namespace;
    // Without a workload, nothing creates the Pod again.
    let command = (!subject.owners.is_empty())
        .then(|| format!("kubectl delete pod --namespace {namespace} {}", name(pod)));
    Some(finding.commands(command))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check::report::Status, names::NamespaceName};
    use serde_json::json;

    fn subject(kind: &str, object: Value) -> Subject {
        Subject {
            kind: Kind::of(kind).unwrap(),
            namespace: NamespaceName::new("ns").unwrap(),
            object,
            exists: true,
            owners: Vec::new(),
        }
    }

    fn deployment(own: Value, template: Value) -> Subject {
        let template = json!({"metadata": template, "spec": {}});
        subject(
            "Deployment",
            json!({"metadata": {"name": "app", "annotations": own}, "spec": {"template": template}}),
        )
    }

    fn finding(subject: &Subject, namespace: Value) -> Finding {
        let mut metadata = namespace;
        metadata["name"] = json!("ns");
        references(subject, &json!({"metadata": metadata})).unwrap_err()
    }

    #[test]
    fn the_annotation_of_a_workload_is_moved_to_its_pod_template() {
        let key = ACCESS_TOKEN_ANNOTATION;
        let found = finding(&deployment(json!({key: "contoso"}), json!({})), json!({}));
        assert_eq!(found.reason, Some("AnnotationOnWorkload"));
        assert!(
            found
                .message
                .ends_with("only the annotations in spec.template.metadata.annotations"),
            "{}",
            found.message
        );
        assert_eq!(
            found.commands,
            [
                r#"kubectl patch deployment --namespace ns app --type merge --patch '{"spec":{"template":{"metadata":{"annotations":{"acr-pull.dev/access-token":"contoso"}}}}}'"#
            ]
        );
        let hostile = deployment(json!({key: "x'; touch /tmp/pwned; '"}), json!({}));
        let found = finding(&hostile, json!({}));
        assert!(
            found.commands[0].contains(r#":"GENERATOR""#),
            "{:?}",
            found.commands
        );
    }

    #[test]
    fn a_misspelt_key_and_a_label_in_place_of_the_annotation_are_recognized() {
        for key in [
            "acr-pull.dev/acces-token",
            "acr-pul.dev/acces-tokn",
            "acr-pull.io/access-token",
            "acr-pull.dev/accesstoken",
            "acr-pull.dev/access_token",
            "ACR-pull.dev/access-token",
            "azure.acr/access-token",
        ] {
            let found = finding(
                &deployment(json!({}), json!({"annotations": {key: "contoso"}})),
                json!({}),
            );
            assert_eq!(found.reason, Some("AnnotationMisspelt"), "{key}");
            assert!(found.message.contains(key), "{}", found.message);
        }
        let labelled = deployment(json!({}), json!({"labels": {ACCESS_TOKEN_ANNOTATION: "contoso"}}));
        assert_eq!(finding(&labelled, json!({})).reason, Some("AnnotationMisspelt"));
        for key in OTHER_KEYS
            .into_iter()
            .chain(["app.kubernetes.io/name", "prometheus.io/scrape"])
        {
            let found = finding(
                &deployment(json!({}), json!({"annotations": {key: "x"}})),
                json!({}),
            );
            assert_eq!(found.reason, Some("NotRequested"), "{key}");
        }
    }

    #[test]
    fn the_default_of_a_namespace_must_be_a_label() {
        let plain = deployment(json!({}), json!({}));
        let found = finding(
            &plain,
            json!({"annotations": {ACCESS_TOKEN_ANNOTATION: "ClusterGenerator/x"}}),
        );
        assert_eq!(
            found.commands,
            ["kubectl label namespace ns acr-pull.dev/access-token=ClusterGenerator.x"]
        );
        let labelled = json!({"metadata": {"name": "ns", "labels": {ACCESS_TOKEN_ANNOTATION: "x"}}});
        let (source, references) = references(&plain, &labelled).unwrap();
        assert_eq!((source, references.len()), (Source::Namespace, 1));
    }

    #[test]
    fn an_opt_out_is_a_warning_and_an_invalid_value_has_the_webhooks_reason() {
        let annotated = |value: &str| {
            deployment(
                json!({}),
                json!({"annotations": {ACCESS_TOKEN_ANNOTATION: value}}),
            )
        };
        let found = finding(
            &annotated("none"),
            json!({"labels": {ACCESS_TOKEN_ANNOTATION: "x"}}),
        );
        assert_eq!(
            (found.status, found.reason),
            (Status::Warning, Some("NotRequested"))
        );
        assert_eq!(
            finding(&annotated("Contoso"), json!({})).reason,
            Some("InvalidAnnotation")
        );
    }

    #[test]
    fn a_pod_without_the_label_of_the_webhook_was_created_without_it() {
        let pod = |labels: Value| subject("Pod", json!({"metadata": {"name": "app", "labels": labels}}));
        assert_eq!(
            injection(&pod(json!({INJECTED_LABEL: "true"}))).unwrap().reason,
            None
        );
        assert_eq!(injection(&pod(json!({}))).unwrap().reason, Some("NotInjected"));
        assert!(injection(&deployment(json!({}), json!({}))).is_none());
    }
}
