//! The permissions of the webhook's service account, by SubjectAccessReviews.

use super::{
    api::{ApiServer, Unread},
    reason::Reason,
    report::Finding,
    settings::Settings,
    target::Target,
};
use crate::leader::LEASE_NAME;
use futures::{StreamExt, stream};
use serde_json::{Value, json};

const CHECK: &str = "permissions";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// Each review that runs at the same time needs a connection.
const MAX_CONCURRENT_REVIEWS: usize = 8;
/// The most missing permissions that are named.
const MAX_NAMED: usize = 4;

/// A rule as in a ClusterRole: group, resource and verbs.
type Rule = (&'static str, &'static str, &'static [&'static str]);

const READ: &[&str] = &["get", "list", "watch"];

/// The permissions in each served namespace, or in the whole cluster.
const NAMESPACED: [Rule; 9] = [
    ("generators.external-secrets.io", "acraccesstokens", READ),
    (
        "acr-pull.dev",
        "acrpullsecrets",
        &["get", "list", "watch", "create", "patch", "delete"],
    ),
    ("acr-pull.dev", "acrpullsecrets/status", &["patch"]),
    ("", "serviceaccounts", READ),
    ("", "pods", READ),
    ("", "events", READ),
    ("events.k8s.io", "events", &["create"]),
    ("", "serviceaccounts/token", &["create"]),
    ("", "secrets", &["create", "update"]),
];
/// The permissions for cluster-scoped objects, without `--namespaces`.
const CLUSTER_SCOPED: [Rule; 2] = [
    ("generators.external-secrets.io", "clustergenerators", READ),
    ("", "namespaces", READ),
];

/// One permission.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Permission {
    namespace: Option<String>,
    group: &'static str,
    resource: &'static str,
    verb: &'static str,
    name: Option<String>,
}

impl Permission {
    fn all(rules: &[Rule], namespace: Option<&str>) -> Vec<Self> {
        let verbs = |(group, resource, verbs): &Rule| -> Vec<_> {
            let (group, resource) = (*group, *resource);
            let one = |verb: &&'static str| Self {
                namespace: namespace.map(str::to_owned),
                group,
                resource,
                verb,
                name: None,
            };
            verbs.iter().map(one).collect()
        };
        rules.iter().flat_map(verbs).collect()
    }

    fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// The body of the review for this user.
    fn review(&self, user: &str) -> Value {
        let (resource, subresource) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": ["system:serviceaccounts", "system:authenticated"],
                "resourceAttributes": {
                    "namespace": self.namespace, "group": self.group, "resource": resource,
                    "subresource": subresource, "verb": self.verb, "name": self.name,
                },
            },
        })
    }

    fn describe(&self) -> String {
        let group = if self.group.is_empty() {
            String::new()
        } else {
            format!(".{}", self.group)
        };
        let name = self
            .name
            .as_ref()
            .map(|name| format!(" {name}"))
            .unwrap_or_default();
        let place = match &self.namespace {
            Some(namespace) => format!(" in namespace {namespace}"),
            None => String::new(),
        };
        format!("{} {}{group}{name}{place}", self.verb, self.resource)
    }
}

/// All permissions that the webhook needs with these settings.
fn needed(target: &Target, settings: &Settings) -> Vec<Permission> {
    let mut all = Vec::new();
    if settings.is_cluster_wide() {
        all.extend(Permission::all(&NAMESPACED, None));
        all.extend(Permission::all(&CLUSTER_SCOPED, None));
    }
    for namespace in settings.served_namespaces() {
        all.extend(Permission::all(&NAMESPACED, Some(namespace)));
    }
    let tls = &settings.serve.tls;
    let registration: Rule = (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        &["get", "list", "watch", "patch"],
    );
    let named = Permission::all(&[registration], None).into_iter();
    all.extend(named.map(|permission| permission.named(&tls.webhook_configuration)));
    let (namespace, secret) = settings.tls_secret(target);
    let certificates: Rule = ("", "secrets", &["get", "list", "watch", "update"]);
    let named = Permission::all(&[certificates], Some(namespace)).into_iter();
    all.extend(named.map(|permission| permission.named(secret)));
    all.extend(Permission::all(&[("", "secrets", &["create"])], Some(namespace)));
    let election = Some(settings.lease_namespace(target));
    all.extend(Permission::all(
        &[("coordination.k8s.io", "leases", &["create"])],
        election,
    ));
    let lease: Rule = ("coordination.k8s.io", "leases", &["get", "update"]);
    all.extend(
        Permission::all(&[lease], election)
            .into_iter()
            .map(|permission| permission.named(LEASE_NAME)),
    );
    all
}

/// The user name of the webhook's service account.
fn user(target: &Target) -> String {
    format!(
        "system:serviceaccount:{}:{}",
        target.namespace,
        target.service_account()
    )
}

/// Whether the webhook may read a Secret of a service principal. Its owner permits that by a Role for this Secret.
pub async fn may_read_secret(
    api: &ApiServer,
    target: &Target,
    namespace: &str,
    secret: &str,
) -> Result<bool, Unread> {
    let permission = Permission {
        namespace: Some(namespace.to_owned()),
        group: "",
        resource: "secrets",
        verb: "get",
        name: Some(secret.to_owned()),
    };
    is_allowed(api, &permission.review(&user(target))).await
}

/// The answer of the API server to a review.
async fn is_allowed(api: &ApiServer, review: &Value) -> Result<bool, Unread> {
    let answer = api.post(REVIEWS, review).await?;
    Ok(answer["status"]["allowed"] == true)
}

/// Checks all permissions of the webhook.
pub async fn check(api: &ApiServer, target: &Target, settings: &Settings) -> Vec<Finding> {
    let user = user(target);
    let needed = needed(target, settings);
    let ask = |permission: &Permission| {
        let review = permission.review(&user);
        async move { is_allowed(api, &review).await }
    };
    let answers: Vec<_> = stream::iter(needed.iter().map(ask))
        .buffered(MAX_CONCURRENT_REVIEWS)
        .collect()
        .await;
    let mut missing = Vec::new();
    for (permission, answer) in needed.iter().zip(answers) {
        match answer {
            Ok(true) => {}
            Ok(false) => missing.push(permission.describe()),
            Err(Unread::Forbidden(_)) => {
                let message = "you may not ask for the permissions of the webhook's service account (create \
                               subjectaccessreviews)";
                return vec![Finding::unknown(CHECK, Reason::NotPermitted, message)];
            }
            Err(unread) => return vec![unread.finding(CHECK, "the permissions of the webhook")],
        }
    }
    if missing.is_empty() {
        return vec![Finding::ok(
            CHECK,
            format!("{user} has all {} permissions that it needs", needed.len()),
        )];
    }
    let more = missing.len().saturating_sub(MAX_NAMED);
    missing.truncate(MAX_NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let message = format!("{user} may not {}{more}", missing.join(", "));
    let finding = Finding::failed(CHECK, Reason::PermissionMissing, message);
    vec![
        finding
            .command(target.reapply("rbac.yaml"))
            .command(target.reapply("certificates.yaml")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn target() -> Target {
        Target {
            namespace: "acr-pull-webhook".to_owned(),
            registrations: Ok(Vec::new()),
            deployment: Err(Unread::NotFound),
        }
    }

    /// The permissions that the manifests grant, as this module describes them.
    fn granted() -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for file in ["rbac.yaml", "certificates.yaml"] {
            let yaml = std::fs::read_to_string(format!("deploy/kustomize/base/{file}")).unwrap();
            let objects: Vec<Value> = serde_saphyr::from_multiple(&yaml).unwrap();
            for role in objects.iter().filter(|object| object.get("rules").is_some()) {
                let place = match role["metadata"]["namespace"].as_str() {
                    Some(namespace) => format!(" in namespace {namespace}"),
                    None => String::new(),
                };
                for rule in role["rules"].as_array().unwrap() {
                    let texts = |key: &str| -> Vec<String> {
                        let items = rule[key].as_array().into_iter().flatten();
                        items.map(|item| item.as_str().unwrap().to_owned()).collect()
                    };
                    let group = texts("apiGroups").remove(0);
                    let group = if group.is_empty() {
                        group
                    } else {
                        format!(".{group}")
                    };
                    let name = texts("resourceNames")
                        .first()
                        .map(|name| format!(" {name}"))
                        .unwrap_or_default();
                    for resource in texts("resources") {
                        all.extend(
                            texts("verbs")
                                .iter()
                                .map(|verb| format!("{verb} {resource}{group}{name}{place}")),
                        );
                    }
                }
            }
        }
        all
    }

    #[test]
    fn exactly_the_permissions_of_the_manifests_are_asked_for() {
        let settings = Settings::local(&[]).unwrap();
        let asked = needed(&target(), &settings)
            .iter()
            .map(Permission::describe)
            .collect::<BTreeSet<_>>();
        assert_eq!(asked, granted());
    }

    #[test]
    fn with_namespaces_the_permissions_are_asked_for_in_each_of_them() {
        let settings = Settings::local(&["--namespaces=a,b".to_owned()]).unwrap();
        let asked: Vec<_> = needed(&target(), &settings)
            .iter()
            .map(Permission::describe)
            .collect();
        let has = |permission: &str| asked.iter().any(|asked| asked == permission);
        assert!(has("create secrets in namespace a") && has("create secrets in namespace b"));
        assert!(!has("create secrets") && !has("get namespaces"), "{asked:?}");
        let review = Permission::all(&[("", "serviceaccounts/token", &["create"])], Some("a"))[0].review("u");
        let attributes = &review["spec"]["resourceAttributes"];
        assert_eq!(
            (&attributes["resource"], &attributes["subresource"]),
            (&json!("serviceaccounts"), &json!("token"))
        );
    }
}
