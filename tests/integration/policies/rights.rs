//! Rights that the webhook does not have.

use super::{
    HERE,
    attempt::{Attempt, assert_denied, delete, get, merge, post, put, secret_path},
    thief,
};
use serde_json::json;
use testkit::control_plane::{self, NAMESPACE};

/// Attempts on objects of users.
fn on_workloads() -> Vec<Attempt> {
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}});
    let here = |rest: &str| format!("/api/v1/namespaces/{HERE}/{rest}");
    let generators = "/apis/generators.external-secrets.io/v1alpha1";
    vec![
        post("create a Pod", here("pods"), pod.clone()),
        post(
            "create a Pod in its own namespace",
            format!("/api/v1/namespaces/{NAMESPACE}/pods"),
            pod,
        ),
        delete("delete a Pod", here("pods/x")),
        post(
            "run a command in a Pod",
            here("pods/x/exec?command=id"),
            json!({}),
        ),
        get("read a Pod's log", here("pods/x/log")),
        merge(
            "change a service account",
            here("serviceaccounts/victim"),
            json!({}),
        ),
        get("read a ConfigMap", here("configmaps/x")),
        merge(
            "change a generator",
            format!("{generators}/namespaces/{HERE}/acraccesstokens/x"),
            json!({}),
        ),
        get("call a node's kubelet", "/api/v1/nodes/x/proxy/pods"),
    ]
}

/// Attempts to extend its rights or to remove the policies.
fn on_authorization() -> Vec<Attempt> {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let subject = json!({"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE});
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let binding = json!({"metadata": {"name": "x"}, "roleRef": role, "subjects": [subject]});
    let policy = "acr-pull-webhook-secrets";
    vec![
        post(
            "create a role",
            format!("{rbac}/clusterroles"),
            json!({"metadata": {"name": "x"}, "rules": [rule]}),
        ),
        merge(
            "extend its own role",
            format!("{rbac}/clusterroles/{NAMESPACE}"),
            json!({"rules": [rule]}),
        ),
        post(
            "bind itself to a role",
            format!("{rbac}/clusterrolebindings"),
            binding.clone(),
        ),
        post(
            "bind itself to a role in its own namespace",
            format!("{rbac}/namespaces/{NAMESPACE}/rolebindings"),
            binding,
        ),
        delete(
            "delete a policy",
            format!("{admission}/validatingadmissionpolicies/{policy}"),
        ),
        delete(
            "delete the binding of a policy",
            format!("{admission}/validatingadmissionpolicybindings/{policy}"),
        ),
        post(
            "register a validating webhook",
            format!("{admission}/validatingwebhookconfigurations"),
            json!({"metadata": {"name": "x"}}),
        ),
        merge(
            "change a kind",
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/acrpullsecrets.acr-pull.dev",
            json!({}),
        ),
        post(
            "request a certificate",
            "/apis/certificates.k8s.io/v1/certificatesigningrequests",
            json!({"metadata": {"name": "x"}}),
        ),
    ]
}

/// Attempts on Leases that are not its own.
fn on_leases() -> Vec<Attempt> {
    let lease = json!({"metadata": {"name": "acr-pull-webhook-leader"}});
    let leases = |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let other = format!("{}/other", leases(NAMESPACE));
    vec![
        post("a Lease in another namespace", leases(HERE), lease.clone()),
        put("another Lease", other, lease),
    ]
}

#[testkit::test]
async fn the_token_grants_no_other_right() {
    let thief = thief().await;
    assert_denied(&thief, on_workloads()).await;
    assert_denied(&thief, on_authorization()).await;
    assert_denied(&thief, on_leases()).await;
    let impersonating = control_plane::for_stolen_credentials()
        .with_webhooks_token(Some("system:admin"))
        .await;
    let path = secret_path(HERE, "foreign");
    assert_denied(&impersonating, vec![get("impersonate another user", path)]).await;
}
