//! The ValidatingAdmissionPolicies that limit the webhook's own permissions.

use super::{
    api::{ApiServer, Unread, items, text},
    reason::Reason,
    report::{Finding, Status},
    target::Target,
};
use serde_json::Value;

const CHECK: &str = "policies";
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
/// What follows the name of the installation in the name of a policy and of its binding.
const SUFFIXES: [&str; 3] = ["secrets", "tokens", "registration"];

/// Checks that each policy exists, applies to the webhook's account and is enforced.
pub async fn check(api: &ApiServer, target: &Target) -> Vec<Finding> {
    let mut problems = Vec::new();
    let mut missing = 0;
    for suffix in SUFFIXES {
        let name = format!("{}-{suffix}", target.name());
        let policy = api
            .get(&format!("{GROUP}/validatingadmissionpolicies/{name}"))
            .await;
        let binding = api
            .get(&format!("{GROUP}/validatingadmissionpolicybindings/{name}"))
            .await;
        match (policy, binding) {
            (Err(Unread::NotFound), _) => {
                missing += 1;
                problems.push(format!("{name} does not exist"));
            }
            (Ok(_), Err(Unread::NotFound)) => problems.push(format!("{name} has no binding")),
            (Ok(policy), Ok(binding)) => problems.extend(problem(target, &name, &policy, &binding)),
            (Err(unread), _) | (_, Err(unread)) => {
                return vec![unread.finding(CHECK, &format!("ValidatingAdmissionPolicy {name}"))];
            }
        }
    }
    if problems.is_empty() {
        return vec![Finding::ok(
            CHECK,
            "three ValidatingAdmissionPolicies limit the webhook's permissions",
        )];
    }
    let message = format!("ValidatingAdmissionPolicy {}", problems.join("; "));
    let finding = Finding::failed(CHECK, Reason::PolicyMissing, message);
    // The chart can be installed without policies on purpose.
    let is_optional = missing == SUFFIXES.len();
    let status = if is_optional {
        Status::Warning
    } else {
        Status::Failed
    };
    vec![finding.status(status).command(target.reapply("policies.yaml"))]
}

fn problem(target: &Target, name: &str, policy: &Value, binding: &Value) -> Option<String> {
    let account = format!(
        "system:serviceaccount:{}:{}",
        target.namespace,
        target.service_account()
    );
    let mut conditions = items(policy, "/spec/matchConditions").iter();
    if !conditions.any(|condition| text(condition, "/expression").contains(&format!("'{account}'"))) {
        return Some(format!("{name} is not for {account}"));
    }
    let mut actions = items(binding, "/spec/validationActions").iter();
    if !actions.any(|action| action == "Deny") {
        return Some(format!("{name} is not enforced: its binding has no action Deny"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_for_another_account_or_without_deny_is_reported() {
        let target = Target {
            namespace: "ns".to_owned(),
            registrations: Ok(Vec::new()),
            deployment: Err(Unread::NotFound),
        };
        let policy = |account: &str| {
            let expression = format!("request.userInfo.username == 'system:serviceaccount:{account}'");
            json!({"spec": {"matchConditions": [{"expression": expression}]}})
        };
        let binding = |action: &str| json!({"spec": {"validationActions": [action]}});
        let of = |account, action| problem(&target, "p", &policy(account), &binding(action));
        assert_eq!(of("ns:acr-pull-webhook", "Deny"), None);
        assert!(
            of("ns:acr-pull-webhook-2", "Deny")
                .unwrap()
                .contains("is not for")
        );
        assert!(
            of("ns:acr-pull-webhook", "Audit")
                .unwrap()
                .contains("is not enforced")
        );
    }
}
