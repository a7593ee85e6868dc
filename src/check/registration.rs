//! The MutatingWebhookConfiguration: which Pods the API server sends to the webhook, and where.

use super::{
    api::{ApiServer, Unread, items, name, text},
    reason::Reason,
    report::{Finding, Status},
    target::{ANNOTATED_PODS, LABELLED_NAMESPACES, Target},
};
use crate::admission::ACCESS_TOKEN_ANNOTATION;
use serde_json::Value;

const CHECK: &str = "registration";

/// Checks the registration. `configured` is its name in the flags of the webhook, and `is_cluster_wide` is whether the
/// webhook serves all namespaces.
pub fn check(target: &Target, configured: &str, is_cluster_wide: bool) -> Vec<Finding> {
    let registrations = match &target.registrations {
        Ok(registrations) => registrations,
        Err(unread) => return vec![unread.finding(CHECK, "MutatingWebhookConfigurations")],
    };
    let Some(registration) = target.registration(configured) else {
        let message = format!(
            "MutatingWebhookConfiguration {configured} does not exist, so no Pod is sent to the webhook"
        );
        let finding = Finding::failed(CHECK, Reason::RegistrationNotFound, message);
        return vec![finding.command(target.reapply("webhook.yaml"))];
    };
    let mut findings = entries(target, registration, is_cluster_wide);
    let others = registrations.iter().filter(|found| name(found) != configured);
    findings.extend(others.map(duplicate));
    if findings.is_empty() {
        let message =
            format!("MutatingWebhookConfiguration {configured} sends annotated Pods to the webhook");
        findings.push(Finding::ok(CHECK, message));
    }
    findings
}

/// The finding about another registration. The webhook publishes its path in one registration only, so another one
/// without a path makes the API server refuse the Pods.
fn duplicate(other: &Value) -> Finding {
    let is_broken = items(other, "/webhooks")
        .iter()
        .any(|entry| published_path(entry).is_none());
    let consequence = if is_broken {
        "without the path of a webhook, so that these Pods are refused"
    } else {
        "too"
    };
    let other = name(other);
    let message = format!(
        "MutatingWebhookConfiguration {other} sends Pods to a webhook of this kind {consequence}; delete it if it \
         belongs to \
         an earlier installation"
    );
    let status = if is_broken {
        Status::Failed
    } else {
        Status::Warning
    };
    Finding::failed(CHECK, Reason::RegistrationDuplicate, message)
        .status(status)
        .command(format!("kubectl delete mutatingwebhookconfiguration {other}"))
}

fn entries(target: &Target, registration: &Value, is_cluster_wide: bool) -> Vec<Finding> {
    let registered = items(registration, "/webhooks");
    let expected = [ANNOTATED_PODS, LABELLED_NAMESPACES];
    let expected = expected
        .into_iter()
        .filter(|entry| is_cluster_wide || *entry == ANNOTATED_PODS);
    let mut findings = Vec::new();
    for expected in expected {
        let found = registered
            .iter()
            .enumerate()
            .find(|(_, entry)| entry["name"] == expected);
        match found {
            None => findings.push(changed(target, format!("the entry {expected} is missing"))),
            Some((index, entry)) => findings.extend(entry_findings(target, name(registration), index, entry)),
        }
    }
    findings
}

fn changed(target: &Target, what: String) -> Finding {
    let finding = Finding::failed(CHECK, Reason::RegistrationChanged, what);
    finding.command(target.reapply("webhook.yaml"))
}

fn entry_findings(target: &Target, registration: &str, index: usize, entry: &Value) -> Vec<Finding> {
    let entry_name = text(entry, "/name");
    let mut findings = Vec::new();
    if !items(entry, "/rules").iter().any(selects_created_pods) {
        let what = format!("the entry {entry_name} has no rule for the operation CREATE of pods");
        findings.push(changed(target, what));
    }
    let conditions = items(entry, "/matchConditions").iter();
    let mut conditions = conditions.map(|condition| text(condition, "/expression"));
    if !conditions.any(|expression| expression.contains(ACCESS_TOKEN_ANNOTATION)) {
        let what = format!(
            "the entry {entry_name} has no matchCondition for {ACCESS_TOKEN_ANNOTATION}, so that an outage of the \
             webhook affects every Pod"
        );
        findings.push(changed(target, what));
    }
    if text(entry, "/failurePolicy") == "Ignore" {
        let message = format!(
            "the entry {entry_name} has failurePolicy Ignore: a Pod that is created while the webhook is down gets no \
             pull secret, also later"
        );
        let patch =
            format!(r#"[{{"op":"replace","path":"/webhooks/{index}/failurePolicy","value":"Fail"}}]"#);
        let command = format!(
            "kubectl patch mutatingwebhookconfiguration {registration} --type json --patch '{patch}'"
        );
        findings.push(Finding::warning(CHECK, Reason::FailurePolicyIgnore, message).command(command));
    }
    if published_path(entry).is_none() {
        let message = format!(
            "the entry {entry_name} has no path: no replica has published the secret path; look at the log of the \
             webhook"
        );
        let command = format!(
            "kubectl logs --namespace {} deployment/{}",
            target.namespace,
            target.name()
        );
        findings.push(Finding::failed(CHECK, Reason::PathNotPublished, message).command(command));
    }
    findings
}

fn selects_created_pods(rule: &Value) -> bool {
    let has = |pointer, value: &str| {
        items(rule, pointer)
            .iter()
            .any(|item| item == value || item == "*")
    };
    has("/operations", "CREATE")
        && has("/resources", "pods")
        && has("/apiGroups", "")
        && has("/apiVersions", "v1")
}

/// The secret path of an entry. It is compared and never printed.
pub fn published_path(entry: &Value) -> Option<&str> {
    let client = &entry["clientConfig"];
    let path = match client["url"].as_str() {
        Some(url) => &url[url.find("/mutate/")?..],
        None => client["service"]["path"].as_str()?,
    };
    path.starts_with("/mutate/").then_some(path)
}

/// Checks that the Service of the registration has ready endpoints.
pub async fn check_service(api: &ApiServer, target: &Target) -> Vec<Finding> {
    const CHECK: &str = "Service";
    let all = target.registrations.iter().flatten();
    let mut entries = all.flat_map(|registration| items(registration, "/webhooks"));
    let Some(service) = entries.find_map(|entry| entry["clientConfig"].get("service")) else {
        return Vec::new();
    };
    let (namespace, service) = (text(service, "/namespace"), text(service, "/name"));
    match api
        .get(&format!("/api/v1/namespaces/{namespace}/services/{service}"))
        .await
    {
        Ok(_) => {}
        Err(Unread::NotFound) => {
            let message =
                format!("Service {namespace}/{service}, which the registration names, does not exist");
            let finding = Finding::failed(CHECK, Reason::NoEndpoints, message);
            return vec![finding.command(target.reapply("deployment.yaml"))];
        }
        Err(unread) => return vec![unread.finding(CHECK, &format!("Service {namespace}/{service}"))],
    }
    let path = format!(
        "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}"
    );
    match api.list(&path).await {
        Err(unread) => vec![unread.finding(CHECK, &format!("EndpointSlices in namespace {namespace}"))],
        Ok(slices) => {
            let endpoints = slices.iter().flat_map(|slice| items(slice, "/endpoints"));
            let ready = endpoints
                .filter(|endpoint| endpoint["conditions"]["ready"] != false)
                .count();
            vec![if ready == 0 {
                let message = format!("Service {namespace}/{service} has no ready endpoint; see Deployment");
                let command = format!("kubectl get endpointslices,pods --namespace {namespace}");
                Finding::failed(CHECK, Reason::NoEndpoints, message).command(command)
            } else {
                Finding::ok(
                    CHECK,
                    format!("{namespace}/{service} has {ready} ready endpoints"),
                )
            }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> Value {
        json!({
            "name": ANNOTATED_PODS, "failurePolicy": "Fail",
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "matchConditions": [{"expression": "'acr-pull.dev/access-token' in object.metadata.annotations"}],
            "clientConfig": {"service": {"name": "w", "namespace": "w", "path": "/mutate/abc"}},
        })
    }

    fn found(is_cluster_wide: bool, change: fn(&mut Value)) -> Vec<&'static str> {
        let mut registration = json!({"metadata": {"name": "w"}, "webhooks": [entry(), entry()]});
        registration["webhooks"][1]["name"] = json!(LABELLED_NAMESPACES);
        change(&mut registration["webhooks"]);
        let target = Target {
            namespace: "w".to_owned(),
            registrations: Ok(vec![registration]),
            deployment: Err(Unread::NotFound),
        };
        check(&target, "w", is_cluster_wide)
            .iter()
            .filter_map(|finding| finding.reason)
            .collect()
    }

    #[test]
    fn a_changed_registration_is_recognized_by_what_was_changed() {
        assert_eq!(found(true, |_| ()), [""; 0]);
        assert_eq!(
            found(true, |w| w[1]["name"] = json!("other")),
            ["RegistrationChanged"]
        );
        assert_eq!(found(false, |w| w[1]["name"] = json!("other")), [""; 0]);
        assert_eq!(
            found(true, |w| w[0]["rules"][0]["operations"] = json!(["UPDATE"])),
            ["RegistrationChanged"]
        );
        assert_eq!(
            found(true, |w| w[0]["matchConditions"] = json!([])),
            ["RegistrationChanged"]
        );
        assert_eq!(
            found(true, |w| w[0]["failurePolicy"] = json!("Ignore")),
            ["FailurePolicyIgnore"]
        );
        let without_path = |w: &mut Value| w[0]["clientConfig"]["service"]["path"] = Value::Null;
        assert_eq!(found(true, without_path), ["PathNotPublished"]);
        let by_url = |w: &mut Value| w[0]["clientConfig"] = json!({"url": "https://host:8443/mutate/abc"});
        assert_eq!(found(true, by_url), [""; 0]);
    }

    #[test]
    fn a_missing_and_a_second_registration_are_reported() {
        let target = |names: &[&str]| Target {
            namespace: "w".to_owned(),
            registrations: Ok(names
                .iter()
                .map(|name| json!({"metadata": {"name": name}, "webhooks": [entry()]}))
                .collect()),
            deployment: Err(Unread::NotFound),
        };
        let reasons = |names: &[&str]| -> Vec<_> {
            check(&target(names), "w", false)
                .iter()
                .filter_map(|finding| finding.reason)
                .collect()
        };
        assert_eq!(reasons(&["other"]), ["RegistrationNotFound"]);
        assert_eq!(reasons(&["w", "other"]), ["RegistrationDuplicate"]);
    }
}
