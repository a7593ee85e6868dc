//! Secrets that the webhook may not read, write or create.

use super::{
    CONFIG, HERE, VALUE,
    attempt::{
        Attempt, apply_path, assert_denied, certificates, delete, get, json_patch, merge, owner, post,
        pull_secret, put, secret_path, server_side_apply, with,
    },
    thief,
};
use serde_json::{Value, json};
use testkit::control_plane::NAMESPACE;

/// The path of all Secrets in a namespace.
fn secrets(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets")
}

fn dry_run(path: &str) -> String {
    format!("{path}?dryRun=All")
}

/// Attempts to read or delete Secrets of others, and to learn their values by a patch.
fn reads() -> Vec<Attempt> {
    let (foreign, own_foreign) = (secret_path(HERE, "foreign"), secret_path(NAMESPACE, "foreign"));
    let bare = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign"}});
    let tested = json!([{"op": "test", "path": "/data/password", "value": VALUE}]);
    let annotated = json!({"metadata": {"annotations": {"a": "b"}}});
    let adopted = json!({"metadata": {"ownerReferences": [owner("acr-pull-foreign", "x")]}});
    vec![
        get("get", foreign.clone()),
        get("list", "/api/v1/secrets"),
        get("watch", "/api/v1/secrets?watch=true"),
        delete("delete", foreign.clone()),
        delete("delete all", secrets(HERE)),
        get("get another Secret of its own namespace", own_foreign.clone()),
        put(
            "replace another Secret of its own namespace",
            own_foreign.clone(),
            bare.clone(),
        ),
        merge("an empty patch", foreign.clone(), json!({})),
        merge("an empty patch in its own namespace", own_foreign, json!({})),
        merge("a dry run", dry_run(&foreign), json!({})),
        json_patch("an empty JSON patch", foreign.clone(), json!([])),
        json_patch("a test of the value", foreign.clone(), tested),
        server_side_apply(
            "an apply of nothing",
            apply_path(HERE, "foreign", "force=true"),
            bare,
        ),
        merge("an annotation", foreign.clone(), annotated),
        merge(
            "an owner for a foreign Secret",
            secret_path(HERE, "acr-pull-foreign"),
            adopted,
        ),
        put(
            "a replacement with the presumed value",
            foreign,
            json!({"metadata": {"name": "foreign"}, "type": "Opaque", "data": {"password": VALUE}}),
        ),
    ]
}

/// Attempts to overwrite a Secret of another owner that has the name of a pull Secret.
fn overwrites() -> Vec<Attempt> {
    let path = secret_path(HERE, "acr-pull-foreign");
    let secret = pull_secret("acr-pull-foreign");
    let apply = apply_path(HERE, "acr-pull-foreign", "force=true");
    vec![
        server_side_apply("overwrite a foreign Secret by apply", apply, secret.clone()),
        put("overwrite a foreign Secret", path.clone(), secret.clone()),
        put(
            "overwrite a foreign Secret in a dry run",
            dry_run(&path),
            secret.clone(),
        ),
    ]
}

/// Attempts to create Secrets that are not pull Secrets.
fn creations() -> Vec<Attempt> {
    let new = || pull_secret("acr-pull-x");
    let owned = |owners: Value| with(new(), "/metadata/ownerReferences", owners);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "acr-pull-x", "uid": "x"});
    let token = |name: &str, account: &str| {
        let annotations = json!({"kubernetes.io/service-account.name": account});
        let metadata = json!({"name": name, "annotations": annotations});
        json!({"metadata": metadata, "type": "kubernetes.io/service-account-token"})
    };
    let own_token = token("acr-pull-webhook-certificates", NAMESPACE);
    let bootstrap =
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token"});
    let another = with(certificates("Opaque"), "/metadata/name", json!("x"));
    let here = |what, secret| post(what, secrets(HERE), secret);
    vec![
        here("a token of a service account", token("acr-pull-x", "victim")),
        post("a token with which nodes join", secrets("kube-system"), bootstrap),
        here("no owner", owned(json!([]))),
        here(
            "the owner of another Secret",
            owned(json!([owner("acr-pull-y", "y")])),
        ),
        here(
            "two owners",
            owned(json!([owner("acr-pull-x", "x"), pod.clone()])),
        ),
        here("an owner of another kind", owned(json!([pod]))),
        here("a second key", with(new(), "/data/more", json!(CONFIG))),
        here("another type", with(new(), "/type", json!("Opaque"))),
        here("another name", pull_secret("registry")),
        here("certificates in another namespace", certificates("Opaque")),
        post("another Secret of its own namespace", secrets(NAMESPACE), another),
        post(
            "certificates of a type that receives a token",
            dry_run(&secrets(NAMESPACE)),
            own_token,
        ),
    ]
}

#[testkit::test]
async fn only_its_own_secrets_can_be_read_written_or_created() {
    let thief = thief().await;
    assert_denied(&thief, reads()).await;
    assert_denied(&thief, overwrites()).await;
    assert_denied(&thief, creations()).await;
}

/// Pull Secrets with fields on which other controllers act.
fn decorated() -> [(&'static str, Value); 7] {
    let with = |field: &str, value: Value| with(pull_secret("acr-pull-x"), field, value);
    let managed_by = "app.kubernetes.io/managed-by";
    let more = json!({managed_by: "acr-pull-webhook", "argocd.argoproj.io/secret-type": "repository"});
    let reflected = json!({"reflector.v1.k8s.emberstack.com/reflection-auto-enabled": "true"});
    [
        ("a second label", with("/metadata/labels", more)),
        (
            "another label",
            with("/metadata/labels", json!({managed_by: "Helm"})),
        ),
        ("no label", with("/metadata/labels", json!({}))),
        ("an annotation", with("/metadata/annotations", reflected)),
        ("a finalizer", with("/metadata/finalizers", json!(["a/b"]))),
        ("an immutable Secret", with("/immutable", json!(true))),
        ("an explicitly mutable Secret", with("/immutable", json!(false))),
    ]
}

/// Attempts in namespaces whose Pods are not served.
fn elsewhere() -> Vec<Attempt> {
    let new = || pull_secret("acr-pull-x");
    let held = with(new(), "/metadata/finalizers", json!(["a/b"]));
    let held = with(held, "/immutable", json!(true));
    let mut attempts = Vec::new();
    for namespace in ["kube-system", NAMESPACE] {
        let path = secrets(namespace);
        attempts.push(post("in an unserved namespace", path.clone(), new()));
        attempts.push(post("undeletable in an unserved namespace", path, held.clone()));
        let path = apply_path(namespace, "acr-pull-x", "force=true");
        attempts.push(server_side_apply(
            "by apply in an unserved namespace",
            path,
            new(),
        ));
    }
    attempts
}

/// Fields that a pull Secret may not have, and creations that are not a plain POST.
#[testkit::test]
async fn a_pull_secret_has_no_other_fields_and_no_other_namespace() {
    let thief = thief().await;
    let new = || pull_secret("acr-pull-x");
    let apply = || apply_path(HERE, "acr-pull-x", "force=true");
    let mut attempts = Vec::new();
    for (what, secret) in decorated() {
        attempts.push(post(what, secrets(HERE), secret.clone()));
        attempts.push(post(what, dry_run(&secrets(HERE)), secret.clone()));
        attempts.push(server_side_apply(what, apply(), secret));
    }
    let mut unnamed = new();
    unnamed["metadata"].as_object_mut().unwrap().remove("name");
    unnamed["metadata"]["generateName"] = json!("acr-pull-");
    attempts.push(post("a generated name", secrets(HERE), unnamed));
    attempts.push(server_side_apply("a creation by apply", apply(), new()));
    let twice = json!([owner("acr-pull-x", "x"), owner("acr-pull-x", "y")]);
    let twice = with(twice, "/1/controller", json!(false));
    let twice = with(new(), "/metadata/ownerReferences", twice);
    attempts.push(post("the same owner twice", secrets(HERE), twice));
    let mut second_key = new();
    second_key["stringData"] = json!({"more": "x"});
    attempts.push(post("a second key as text", secrets(HERE), second_key));
    attempts.extend(elsewhere());
    assert_denied(&thief, attempts).await;
}

/// Validation precedes the policies, and its messages quote invalid values.
#[testkit::test]
async fn no_message_contains_a_secret() {
    let thief = thief().await;
    let path = secret_path(HERE, "foreign");
    let copy = |from: &str, to: &str| json!([{"op": "copy", "from": from, "path": to}]);
    let attempts = vec![
        json_patch(
            "a copy to the type",
            path.clone(),
            copy("/data/password", "/type"),
        ),
        json_patch("a copy to the labels", path, copy("/data", "/metadata/labels")),
    ];
    assert_denied(&thief, attempts).await;
}
