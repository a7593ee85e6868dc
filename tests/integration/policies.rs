//! What a thief of the webhook's token can do with it, asked of the real API server with all that `deploy/` puts there.

use http::Request;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Namespace, Secret, ServiceAccount},
};
use kube::{Api, Client, ResourceExt, api::PostParams, core::Status};
use serde_json::{Value, json};
use testkit::{
    control_plane::{self, NAMESPACE, apply},
    eventually,
    objects::from,
};
use tokio::sync::OnceCell;

/// Where the tests are.
const HERE: &str = "policies";
const CONFIG: &str = "eyJhdXRocyI6e319";
const VALUE: &str = "aHVudGVyMg==";

/// One request: what it is, and how it is made.
type Attempt = (&'static str, &'static str, String, &'static str, Value);

/// The API server of these tests, in which there is something to steal: the thief's client.
async fn thief() -> Client {
    static READY: OnceCell<()> = OnceCell::const_new();
    let cluster = control_plane::for_thieves();
    READY.get_or_init(prepare).await;
    cluster.with_webhooks_token(None).await
}

async fn prepare() {
    let cluster = control_plane::for_thieves();
    let admin = cluster.admin().await;
    let mut registration = cluster.prepared().await.registration.clone();
    // Nobody answers there.
    for hook in registration.webhooks.as_mut().unwrap() {
        let selector = hook.namespace_selector.get_or_insert_default();
        selector.match_labels = Some([("test".to_owned(), "nobody".to_owned())].into());
    }
    let by_url = &mut registration.webhooks.as_mut().unwrap()[1].client_config;
    by_url.service = None;
    by_url.url = Some("https://webhook.example.com:8443/mutate".to_owned());
    apply(&Api::all(admin.clone()), &registration).await;
    let mut foreign = registration;
    foreign.metadata.name = Some("policies-foreign".to_owned());
    apply(&Api::<MutatingWebhookConfiguration>::all(admin.clone()), &foreign).await;
    let namespace: Namespace = from(json!({"metadata": {"name": HERE}}));
    apply(&Api::all(admin.clone()), &namespace).await;
    let account: ServiceAccount = from(json!({"metadata": {"name": "victim"}}));
    apply(&Api::namespaced(admin.clone(), HERE), &account).await;
    let opaque = json!({"type": "Opaque", "data": {"password": VALUE}});
    let config = json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": CONFIG}});
    for (namespace, name, secret) in [
        (HERE, "foreign", &opaque),
        (HERE, "acr-pull-foreign", &config),
        (NAMESPACE, "foreign", &opaque),
    ] {
        let mut secret = secret.clone();
        secret["metadata"] = json!({"name": name});
        let secret: Secret = from(secret);
        apply(&Api::namespaced(admin.clone(), namespace), &secret).await;
    }
    let thief = cluster.with_webhooks_token(None).await;
    eventually("the policies are in force", async || {
        // Dry runs: the first may come before the policies.
        let path = format!("{}?dryRun=All", secret_path(HERE, "acr-pull-foreign"));
        let probes = [
            put("", path, pull_secret("acr-pull-foreign")),
            post("", token_path(), token(&json!({}))),
            registration_patch(
                "",
                &json!([{"op": "remove", "path": "/webhooks/0/matchConditions"}]),
            ),
        ];
        for probe in probes {
            if !said(&thief, &probe)
                .await
                .err()?
                .message
                .contains("AdmissionPolicy")
            {
                return None;
            }
        }
        Some(())
    })
    .await;
}

async fn said(client: &Client, (_, method, path, content, body): &Attempt) -> Result<String, Box<Status>> {
    let request = Request::builder()
        .method(*method)
        .uri(path)
        .header("Content-Type", *content)
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    match client.request_text(request).await {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

/// Each of them is answered by 403, and the answer shows nothing of what is there.
async fn all_denied(client: &Client, attempts: Vec<Attempt>) {
    let mut wrong = Vec::new();
    for attempt in attempts {
        match said(client, &attempt).await {
            Ok(_) => wrong.push(format!("{}: succeeded", attempt.0)),
            Err(status) if status.code != 403 => {
                wrong.push(format!("{}: {} {}", attempt.0, status.code, status.message));
            }
            Err(status) if status.message.contains(VALUE) || status.message.contains(CONFIG) => {
                wrong.push(format!("{}: reveals the value", attempt.0));
            }
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "not denied:\n{}", wrong.join("\n"));
}

async fn allowed(client: &Client, attempt: Attempt) -> Value {
    match said(client, &attempt).await {
        Ok(answer) => serde_json::from_str(&answer).unwrap(),
        Err(status) => panic!("{}: {} {}", attempt.0, status.code, status.message),
    }
}

fn get(what: &'static str, path: impl Into<String>) -> Attempt {
    (what, "GET", path.into(), "application/json", json!({}))
}

fn delete(what: &'static str, path: String) -> Attempt {
    (what, "DELETE", path, "application/json", json!({}))
}

fn post(what: &'static str, path: impl Into<String>, body: Value) -> Attempt {
    (what, "POST", path.into(), "application/json", body)
}

fn put(what: &'static str, path: String, body: Value) -> Attempt {
    (what, "PUT", path, "application/json", body)
}

fn merge(what: &'static str, path: impl Into<String>, body: Value) -> Attempt {
    (what, "PATCH", path.into(), "application/merge-patch+json", body)
}

fn server_side_apply(what: &'static str, path: String, body: Value) -> Attempt {
    (what, "PATCH", path, "application/apply-patch+yaml", body)
}

fn json_patch(what: &'static str, path: String, body: Value) -> Attempt {
    (what, "PATCH", path, "application/json-patch+json", body)
}

fn secret_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/secrets/{name}")
}

fn applied(namespace: &str, name: &str, query: &str) -> String {
    format!(
        "{}?fieldManager=acr-pull-webhook&{query}",
        secret_path(namespace, name)
    )
}

fn token_path() -> String {
    token_path_of(HERE, "victim")
}

fn token_path_of(namespace: &str, account: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token")
}

fn token(spec: &Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec})
}

fn owner(name: &str, uid: &str) -> Value {
    let (group, kind) = ("acr-pull.dev/v1alpha1", "ACRPullSecret");
    json!({"apiVersion": group, "kind": kind, "name": name, "uid": uid, "controller": true})
}

/// A Secret as the webhook writes it.
fn pull_secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "acr-pull-webhook"},
            "ownerReferences": [owner(name, "3f0c51a7-0000-0000-0000-000000000000")],
        },
        "type": "kubernetes.io/dockerconfigjson",
        "data": {".dockerconfigjson": CONFIG},
    })
}

/// The same, changed at one place.
fn but(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[key] = value;
    object
}

fn certificates(kind: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "acr-pull-webhook-certificates"},
        "type": kind,
        "stringData": {"tls.crt": "x", "tls.key": "x"},
    })
}

fn registration_path(name: &str) -> String {
    format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}")
}

/// Another URL in the entry that has one.
fn at_a_url(what: &'static str, url: &str) -> Attempt {
    let patch = json!([{"op": "replace", "path": "/webhooks/1/clientConfig/url", "value": url}]);
    json_patch(what, registration_path(NAMESPACE), patch)
}

fn registration_patch(what: &'static str, patch: &Value) -> Attempt {
    json_patch(what, registration_path(NAMESPACE), patch.clone())
}

#[testkit::test]
async fn no_secret_but_its_own_can_be_read_written_or_made_its_own() {
    let thief = thief().await;
    let here = format!("/api/v1/namespaces/{HERE}/secrets");
    let own = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    let bare = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "foreign"}});
    let foreign = || secret_path(HERE, "foreign");
    let overwritten = || secret_path(HERE, "acr-pull-foreign");
    let new = || pull_secret("acr-pull-x");
    let owned = |owners: Value| but(new(), "/metadata/ownerReferences", owners);
    let of_a_pod = json!({"apiVersion": "v1", "kind": "Pod", "name": "acr-pull-x", "uid": "x"});
    let adopted = json!({"metadata": {"ownerReferences": [owner("acr-pull-foreign", "x")]}});
    let tested = json!([{"op": "test", "path": "/data/password", "value": VALUE}]);
    let annotated = json!({"metadata": {"annotations": {"a": "b"}}});
    let account = json!({"kubernetes.io/service-account.name": NAMESPACE});
    let token_of_its_own = json!({
        "metadata": {"name": "acr-pull-webhook-certificates", "annotations": account},
        "type": "kubernetes.io/service-account-token",
    });
    let bootstrap =
        json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token"});
    let system = "/api/v1/namespaces/kube-system/secrets";
    let service_account = json!({
        "metadata": {"name": "acr-pull-x", "annotations": {"kubernetes.io/service-account.name": "victim"}},
        "type": "kubernetes.io/service-account-token",
    });
    all_denied(
        &thief,
        vec![
            get("get", foreign()),
            get("list", "/api/v1/secrets"),
            get("watch", "/api/v1/secrets?watch=true"),
            delete("delete", foreign()),
            delete("delete all", here.clone()),
            get(
                "get another of its own namespace",
                secret_path(NAMESPACE, "foreign"),
            ),
            put(
                "replace another of its own namespace",
                secret_path(NAMESPACE, "foreign"),
                bare.clone(),
            ),
            merge("an empty patch", foreign(), json!({})),
            merge(
                "an empty patch, in its own namespace",
                secret_path(NAMESPACE, "foreign"),
                json!({}),
            ),
            merge("a dry run", format!("{}?dryRun=All", foreign()), json!({})),
            json_patch("an empty JSON patch", foreign(), json!([])),
            json_patch("a test of the value", foreign(), tested),
            server_side_apply(
                "an apply of nothing",
                applied(HERE, "foreign", "force=true"),
                bare,
            ),
            merge("an annotation", foreign(), annotated),
            merge(
                "an owner for a foreign one",
                secret_path(HERE, "acr-pull-foreign"),
                adopted,
            ),
            server_side_apply(
                "a foreign one overwritten by apply",
                applied(HERE, "acr-pull-foreign", "force=true"),
                pull_secret("acr-pull-foreign"),
            ),
            put(
                "a foreign one overwritten",
                overwritten(),
                pull_secret("acr-pull-foreign"),
            ),
            put(
                "the same as a dry run",
                format!("{}?dryRun=All", overwritten()),
                pull_secret("acr-pull-foreign"),
            ),
            put(
                "a foreign one as it might be",
                foreign(),
                json!({"metadata": {"name": "foreign"}, "type": "Opaque", "data": {"password": VALUE}}),
            ),
            post("a token of a service account", here.clone(), service_account),
            post("a token that lets nodes join", system, bootstrap),
            post("no owner", here.clone(), owned(json!([]))),
            post(
                "the owner of another",
                here.clone(),
                owned(json!([owner("acr-pull-y", "y")])),
            ),
            post(
                "two owners",
                here.clone(),
                owned(json!([owner("acr-pull-x", "x"), of_a_pod.clone()])),
            ),
            post("an owner of another kind", here.clone(), owned(json!([of_a_pod]))),
            post(
                "a second key",
                here.clone(),
                but(new(), "/data/more", json!(CONFIG)),
            ),
            post("another type", here.clone(), but(new(), "/type", json!("Opaque"))),
            post("another name", here.clone(), pull_secret("registry")),
            post("certificates in another namespace", here, certificates("Opaque")),
            post(
                "another Secret of its own namespace",
                own.clone(),
                but(certificates("Opaque"), "/metadata/name", json!("x")),
            ),
            post(
                "certificates of a type that gets a token",
                format!("{own}?dryRun=All"),
                token_of_its_own,
            ),
        ],
    )
    .await;
}

/// Attempts 22 and 23: what a pull Secret may not carry, and the ways to create one that are not a plain POST.
#[testkit::test]
async fn a_pull_secret_carries_nothing_that_others_act_upon_and_lies_where_pods_are_served() {
    let thief = thief().await;
    let secrets = |namespace: &str| format!("/api/v1/namespaces/{namespace}/secrets");
    let new = || pull_secret("acr-pull-x");
    let with = |field: &str, value: Value| but(new(), field, value);
    let managed_by = "app.kubernetes.io/managed-by";
    let more = json!({managed_by: "acr-pull-webhook", "argocd.argoproj.io/secret-type": "repository"});
    let reflected = json!({"reflector.v1.k8s.emberstack.com/reflection-auto-enabled": "true"});
    let bad = [
        ("a second label", with("/metadata/labels", more)),
        (
            "another label",
            with("/metadata/labels", json!({managed_by: "Helm"})),
        ),
        ("no label", with("/metadata/labels", json!({}))),
        ("an annotation", with("/metadata/annotations", reflected)),
        ("a finalizer", with("/metadata/finalizers", json!(["a/b"]))),
        ("one that stays for ever", with("/immutable", json!(true))),
        (
            "one that says that it may be changed",
            with("/immutable", json!(false)),
        ),
    ];
    let mut attempts = Vec::new();
    for (what, secret) in bad {
        attempts.push(post(what, secrets(HERE), secret.clone()));
        attempts.push(post(
            what,
            format!("{}?dryRun=All", secrets(HERE)),
            secret.clone(),
        ));
        let path = applied(HERE, "acr-pull-x", "force=true");
        attempts.push(server_side_apply(what, path, secret));
    }
    let mut unnamed = new();
    unnamed["metadata"].as_object_mut().unwrap().remove("name");
    unnamed["metadata"]["generateName"] = json!("acr-pull-");
    attempts.push(post(
        "a name that the API server makes up",
        secrets(HERE),
        unnamed,
    ));
    let path = applied(HERE, "acr-pull-x", "force=true");
    attempts.push(server_side_apply("a creation by apply", path, new()));
    let twice = but(
        json!([owner("acr-pull-x", "x"), owner("acr-pull-x", "y")]),
        "/1/controller",
        json!(false),
    );
    attempts.push(post(
        "the same owner twice",
        secrets(HERE),
        with("/metadata/ownerReferences", twice),
    ));
    let mut second_key = new();
    second_key["stringData"] = json!({"more": "x"});
    attempts.push(post("a second key as text", secrets(HERE), second_key));
    for namespace in ["kube-system", NAMESPACE] {
        attempts.push(post(
            "in a namespace that is not served",
            secrets(namespace),
            new(),
        ));
        let held = but(
            with("/metadata/finalizers", json!(["a/b"])),
            "/immutable",
            json!(true),
        );
        attempts.push(post(
            "for ever, in a namespace that is not served",
            secrets(namespace),
            held,
        ));
        let path = applied(namespace, "acr-pull-x", "force=true");
        attempts.push(server_side_apply(
            "by apply, in a namespace that is not served",
            path,
            new(),
        ));
    }
    all_denied(&thief, attempts).await;
}

/// Attempt 22: a token of a service account of the system, for the audience that the webhook may ask for.
#[testkit::test]
async fn no_token_is_made_for_an_account_where_no_pod_is_served() {
    let thief = thief().await;
    let specs = [
        json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 600}),
        json!({"audiences": ["api://AzureADTokenExchange", "api://AzureADTokenExchange"]}),
    ];
    let mut attempts = Vec::new();
    for (namespace, account) in [
        ("kube-system", "default"),
        (NAMESPACE, NAMESPACE),
        (NAMESPACE, "default"),
    ] {
        for spec in &specs {
            let path = token_path_of(namespace, account);
            attempts.push(post("a token", path.clone(), token(spec)));
            attempts.push(post("a dry run", format!("{path}?dryRun=All"), token(spec)));
        }
    }
    all_denied(&thief, attempts).await;
    // A list in which one stands twice is as good as one without.
    let twice = &specs[1];
    allowed(
        &thief,
        post("the same audience twice", token_path(), token(twice)),
    )
    .await;
}

/// Attempt 23: the API server itself refuses two webhooks of one name, whatever a policy makes of a list with one twice.
#[testkit::test]
async fn one_webhook_does_not_take_the_place_of_the_other() {
    let thief = thief().await;
    let registered = serde_json::to_value(cluster_registration().await).unwrap();
    let twice = json!([registered["webhooks"][1], registered["webhooks"][1]]);
    let patch = json!([{"op": "replace", "path": "/webhooks", "value": twice}]);
    let refused = said(&thief, &registration_patch("one twice", &patch))
        .await
        .unwrap_err();
    assert!(matches!(refused.code, 403 | 422), "{}", refused.message);
}

/// A policy comes after validation, whose messages quote what was copied there.
#[testkit::test]
async fn no_message_reveals_a_secret() {
    let thief = thief().await;
    let copied = |to: &str| json!([{"op": "copy", "from": "/data/password", "path": to}]);
    let path = secret_path(HERE, "foreign");
    all_denied(
        &thief,
        vec![
            json_patch("a copy to the type", path.clone(), copied("/type")),
            json_patch(
                "a copy to a label",
                path,
                json!([{"op": "copy", "from": "/data", "path": "/metadata/labels"}]),
            ),
        ],
    )
    .await;
}

#[testkit::test]
async fn no_token_is_made_for_the_api_server_or_for_long() {
    let thief = thief().await;
    let issuer = &control_plane::for_thieves().prepared().await.issuer;
    let attempts = [
        ("no audience", json!({})),
        ("an empty list", json!({"audiences": []})),
        ("the API server", json!({"audiences": [issuer]})),
        ("another audience", json!({"audiences": ["api://elsewhere"]})),
        (
            "one that is permitted and one that is not",
            json!({"audiences": ["api://AzureADTokenExchange", issuer]}),
        ),
        (
            "a day",
            json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 86400}),
        ),
    ];
    let attempts = attempts.map(|(what, spec)| post(what, token_path(), token(&spec)));
    all_denied(&thief, attempts.into()).await;
}

#[testkit::test]
async fn nothing_of_its_registration_but_authority_and_path_can_be_changed() {
    let thief = thief().await;
    let hook = json!({"name": "more.acr-pull.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": "https://thief.example.com"}});
    let whole = json!({
        "metadata": {"name": "policies-more"}, "webhooks": [hook]});
    let replace = |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]);
    let all = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"]}]);
    all_denied(
        &thief,
        vec![
            registration_patch("its rules", &replace("/webhooks/0/rules", all)),
            registration_patch(
                "its conditions",
                &json!([{"op": "remove", "path": "/webhooks/0/matchConditions"}]),
            ),
            registration_patch(
                "its namespaces",
                &json!([{"op": "remove", "path": "/webhooks/1/namespaceSelector"}]),
            ),
            registration_patch(
                "its Service",
                &replace("/webhooks/0/clientConfig/service/namespace", json!(HERE)),
            ),
            registration_patch(
                "its Service's name",
                &replace("/webhooks/0/clientConfig/service/name", json!("thief")),
            ),
            registration_patch(
                "its Service's port",
                &replace("/webhooks/0/clientConfig/service/port", json!(8443)),
            ),
            at_a_url("another host", "https://thief.example.com:8443/mutate"),
            at_a_url("another port", "https://webhook.example.com/mutate"),
            at_a_url(
                "another host before the same",
                "https://x.webhook.example.com:8443/mutate",
            ),
            registration_patch(
                "its URL",
                &replace(
                    "/webhooks/0/clientConfig",
                    json!({"url": "https://thief.example.com"}),
                ),
            ),
            registration_patch(
                "its failure policy",
                &replace("/webhooks/0/failurePolicy", json!("Ignore")),
            ),
            registration_patch(
                "a webhook more",
                &json!([{"op": "add", "path": "/webhooks/-", "value": hook}]),
            ),
            registration_patch(
                "a webhook less",
                &json!([{"op": "remove", "path": "/webhooks/1"}]),
            ),
            registration_patch("a webhook for another", &replace("/webhooks/1", hook.clone())),
            registration_patch(
                "a finalizer",
                &json!([{"op": "add", "path": "/metadata/finalizers", "value": ["a/b"]}]),
            ),
            registration_patch(
                "an owner, to be collected with",
                &json!([{"op": "add", "path": "/metadata/ownerReferences", "value": [owner("x", "x")]}]),
            ),
            registration_patch(
                "an annotation",
                &json!([{"op": "add", "path": "/metadata/annotations", "value": {"a": "b"}}]),
            ),
            merge("another's", registration_path("policies-foreign"), json!({})),
            post("one more", registration_path("").trim_end_matches('/'), whole),
            delete("none", registration_path(NAMESPACE)),
        ],
    )
    .await;
}

#[testkit::test]
async fn no_other_right_can_be_had() {
    let thief = thief().await;
    let pod = json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "x"}]}});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let admission = "/apis/admissionregistration.k8s.io/v1";
    let rule = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
    let subject = json!({"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE});
    let role =
        json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"});
    let binding = json!({"metadata": {"name": "x"}, "roleRef": role, "subjects": [subject]});
    let lease = json!({"metadata": {"name": "acr-pull-webhook-leader"}});
    let leases = |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    let policy = "acr-pull-webhook-secrets";
    all_denied(
        &thief,
        vec![
            post(
                "create a Pod",
                format!("/api/v1/namespaces/{HERE}/pods"),
                pod.clone(),
            ),
            post(
                "create a Pod in its own namespace",
                format!("/api/v1/namespaces/{NAMESPACE}/pods"),
                pod,
            ),
            delete("delete a Pod", format!("/api/v1/namespaces/{HERE}/pods/x")),
            post(
                "run a command in a Pod",
                format!("/api/v1/namespaces/{HERE}/pods/x/exec?command=id"),
                json!({}),
            ),
            get(
                "read a Pod's log",
                format!("/api/v1/namespaces/{HERE}/pods/x/log"),
            ),
            merge(
                "change a service account",
                format!("/api/v1/namespaces/{HERE}/serviceaccounts/victim"),
                json!({}),
            ),
            get(
                "read a ConfigMap",
                format!("/api/v1/namespaces/{HERE}/configmaps/x"),
            ),
            merge(
                "change a generator",
                format!("/apis/generators.external-secrets.io/v1alpha1/namespaces/{HERE}/acraccesstokens/x"),
                json!({}),
            ),
            get("a node's kubelet", "/api/v1/nodes/x/proxy/pods"),
            post(
                "create a role",
                format!("{rbac}/clusterroles"),
                json!({"metadata": {"name": "x"}, "rules": [rule]}),
            ),
            merge(
                "widen its own role",
                format!("{rbac}/clusterroles/{NAMESPACE}"),
                json!({"rules": [rule]}),
            ),
            post(
                "bind itself to a role",
                format!("{rbac}/clusterrolebindings"),
                binding.clone(),
            ),
            post(
                "the same in its own namespace",
                format!("{rbac}/namespaces/{NAMESPACE}/rolebindings"),
                binding,
            ),
            delete(
                "take a policy away",
                format!("{admission}/validatingadmissionpolicies/{policy}"),
            ),
            delete(
                "take its binding away",
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
                "ask for a certificate",
                "/apis/certificates.k8s.io/v1/certificatesigningrequests",
                json!({"metadata": {"name": "x"}}),
            ),
            post("a Lease elsewhere", leases(HERE), lease.clone()),
            put("another's Lease", format!("{}/other", leases(NAMESPACE)), lease),
        ],
    )
    .await;
    let disguised = control_plane::for_thieves()
        .with_webhooks_token(Some("system:admin"))
        .await;
    let path = secret_path(HERE, "foreign");
    all_denied(&disguised, vec![get("act as somebody else", path)]).await;
}

#[testkit::test]
async fn what_the_webhook_does_is_allowed() {
    let thief = thief().await;
    let owners = format!("/apis/acr-pull.dev/v1alpha1/namespaces/{HERE}/acrpullsecrets");
    let generator = json!({"kind": "ACRAccessToken", "name": "contoso"});
    let spec = json!({"metadata": {"name": "acr-pull-own"}, "spec": {"generator": generator}});
    let made = allowed(
        &thief,
        server_side_apply(
            "its object",
            format!("{owners}/acr-pull-own?fieldManager=x&force=true"),
            {
                let mut whole = spec;
                whole["apiVersion"] = json!("acr-pull.dev/v1alpha1");
                whole["kind"] = json!("ACRPullSecret");
                whole
            },
        ),
    )
    .await;
    let reference = owner("acr-pull-own", made["metadata"]["uid"].as_str().unwrap());
    let secret = but(
        pull_secret("acr-pull-own"),
        "/metadata/ownerReferences",
        json!([reference]),
    );
    let first = allowed(
        &thief,
        post(
            "the pull secret",
            format!("/api/v1/namespaces/{HERE}/secrets"),
            secret.clone(),
        ),
    )
    .await;
    let own = || secret_path(HERE, "acr-pull-own");
    allowed(
        &thief,
        put("a dry run", format!("{}?dryRun=All", own()), secret.clone()),
    )
    .await;
    let bound = but(secret.clone(), "/metadata/uid", first["metadata"]["uid"].clone());
    let renewed = but(bound, "/data", json!({".dockerconfigjson": "e30="}));
    allowed(&thief, put("its renewal", own(), renewed.clone())).await;
    // What others have put there is no reason to let the token end. It goes, as with every write that replaces.
    let admin = Api::<Secret>::namespaced(control_plane::for_thieves().admin().await, HERE);
    let others = json!({"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}});
    let params = kube::api::PatchParams::default();
    admin
        .patch("acr-pull-own", &params, &kube::api::Patch::Merge(others))
        .await
        .unwrap();
    allowed(
        &thief,
        put("its renewal after others wrote to it", own(), renewed),
    )
    .await;
    let kept = admin.get("acr-pull-own").await.unwrap();
    assert_eq!((kept.labels().len(), kept.annotations().len()), (1, 0));
    all_denied(
        &thief,
        vec![put(
            "give it away",
            own(),
            but(secret.clone(), "/metadata/ownerReferences", json!([])),
        )],
    )
    .await;

    let asked = json!({"audiences": ["api://AzureADTokenExchange"], "expirationSeconds": 600});
    allowed(&thief, post("an assertion", token_path(), token(&asked))).await;

    let own = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
    allowed(&thief, post("its certificates", own, certificates("Opaque"))).await;
    let path = secret_path(NAMESPACE, "acr-pull-webhook-certificates");
    allowed(&thief, get("to read them", path.clone())).await;
    allowed(&thief, put("to renew them", path, certificates("Opaque"))).await;

    let registered = cluster_registration().await;
    let authority = registered.webhooks.as_ref().unwrap().iter().map(|hook| {
        let mut config = json!({"caBundle": certificate_authority()});
        if hook.client_config.service.is_some() {
            config["service"] = json!({"name": NAMESPACE, "namespace": NAMESPACE, "path": "/mutate/x"});
        }
        json!({"name": hook.name, "clientConfig": config})
    });
    let patch = json!({"webhooks": authority.collect::<Vec<_>>()});
    let path = registration_path(&registered.name_any());
    let strategic = "application/strategic-merge-patch+json";
    allowed(
        &thief,
        (
            "to publish its authority and path",
            "PATCH",
            path,
            strategic,
            patch,
        ),
    )
    .await;
    allowed(
        &thief,
        at_a_url(
            "to publish its path in a URL",
            "https://webhook.example.com:8443/mutate/x",
        ),
    )
    .await;
}

#[testkit::test]
async fn nobody_else_is_held_by_the_policies() {
    drop(thief().await);
    let admin = control_plane::for_thieves().admin().await;
    let secrets = Api::<Secret>::namespaced(admin, HERE);
    let own: Secret = from(json!({"metadata": {"generateName": "any-"}, "type": "Opaque"}));
    secrets.create(&PostParams::default(), &own).await.unwrap();
}

async fn cluster_registration() -> MutatingWebhookConfiguration {
    let admin = control_plane::for_thieves().admin().await;
    Api::all(admin).get(NAMESPACE).await.unwrap()
}

/// In base64, as JSON has it.
fn certificate_authority() -> Value {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    serde_json::to_value(k8s_openapi::ByteString(certificate.pem().into_bytes())).unwrap()
}
