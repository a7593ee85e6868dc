//! Objects that an API server accepts and that no webhook expects.

use super::bears;
use futures::future::join_all;
use http::Request;
use jiff::Timestamp;
use k8s_openapi::{
    api::rbac::v1::RoleBinding,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, api::DeleteParams};
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::{
    azure::{REGISTRY, TENANT},
    control_plane::{NAMESPACE, apply},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name, unnamed_pod},
};

/// The last time that RFC 3339 can write: Go's time has it, and jiff's has not.
const LATEST: &str = "9999-12-31T23:59:59Z";

/// Tokens of 12 s, so that a leader that has lost sight of a Pod is found out soon.
fn short_lives(world: &mut Value) {
    world["tokens"] = json!({"acrRefreshLifetime": "12s"});
}

/// One request as the administrator, without this crate's idea of what an object is.
async fn send(client: &Client, method: &str, path: &str, body: &Value) -> Result<Value, kube::Error> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = client
        .request_text(request.body(body.into_bytes()).unwrap())
        .await?;
    Ok(serde_json::from_str(&answer).unwrap())
}

/// Gives an object an entry of the year 9999 in its `managedFields`, and returns it.
async fn spoil(client: &Client, path: &str) -> Result<Value, kube::Error> {
    let mut object = send(client, "GET", path, &Value::Null).await?;
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["stranger"] = "yes".into();
    let mut object = send(client, "PUT", path, &object).await?;
    // A change of a timestamp alone is no change to an API server, so a label changes too, which is not this manager's.
    object["metadata"]["labels"]["changed"] = "yes".into();
    object["metadata"]["managedFields"] = json!([{
        "manager": "stranger", "operation": "Update", "apiVersion": object["apiVersion"], "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:stranger": {}}}}, "time": LATEST}]);
    send(client, "PUT", path, &object).await
}

/// An object of each watched kind but for the pull secret's, as its path and itself, of these names.
fn one_of_each(namespace: &TestNamespace, name: &str) -> Vec<(String, Value)> {
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}});
    let generators = "/apis/generators.external-secrets.io/v1alpha1";
    let about = json!({"kind": "Pod", "namespace": namespace, "name": "app"});
    let meta = json!({"name": name});
    let labelled = json!({"name": name, "labels": {"acr-pull.dev/injected": "true"}});
    vec![
        (
            format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}),
        ),
        (
            format!("{generators}/namespaces/{namespace}/acraccesstokens"),
            json!({"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "ACRAccessToken", "metadata": meta, "spec": spec}),
        ),
        (
            format!("{generators}/clustergenerators"),
            json!({"apiVersion": "generators.external-secrets.io/v1alpha1", "kind": "ClusterGenerator", "metadata": meta,
                "spec": {"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}}),
        ),
        (
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"acr-pull.dev/access-token": "contoso"}}}),
        ),
        (
            format!("/api/v1/namespaces/{namespace}/pods"),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": labelled, "spec": {"containers": [{"name": "app", "image": "example.com/app"}]}}),
        ),
        (
            format!("/api/v1/namespaces/{namespace}/events"),
            json!({"apiVersion": "v1", "kind": "Event", "metadata": meta, "involvedObject": about, "type": "Warning",
                "reason": "FailedToRetrieveImagePullSecret", "message": "Unable to retrieve some image pull secrets (regcred); attempting to pull the image may not succeed."}),
        ),
        (
            format!("/apis/acr-pull.dev/v1alpha1/namespaces/{namespace}/acrpullsecrets"),
            json!({"apiVersion": "acr-pull.dev/v1alpha1", "kind": "ACRPullSecret", "metadata": {"name": format!("acr-pull-{name}")},
                "spec": {"generator": {"kind": "ACRAccessToken", "name": "contoso"}, "serviceAccountName": "app"}}),
        ),
    ]
}

/// A pull secret of team B is renewed, and one of a Pod that is created now is too.
async fn renews(env: &TestEnv) {
    let namespace = &env.team_b.namespace;
    let name = pull_secret_name(&namespace.create_pod(&unnamed_pod("contoso")).await);
    let now = Timestamp::now();
    eventually("the leader renews", async || {
        (namespace.status(&name).await.last_renewal_time?.0 > now).then_some(())
    })
    .await;
}

/// Attempts 11 and 12: a time that cannot be decoded in an object of each watched kind.
#[testkit::test]
async fn no_time_in_managed_fields_hides_an_object_from_a_replica_or_from_the_leader() {
    let env = TestEnv::leading(&[], short_lives).await;
    let attempt = async {
        for (path, object) in one_of_each(&env.team_a.namespace, "spoilt") {
            send(&env.client, "POST", &path, &object).await.unwrap();
            let name = object["metadata"]["name"].as_str().unwrap();
            // Controllers write some of them at the same time.
            let spoilt = eventually("it is spoilt", async || {
                spoil(&env.client, &format!("{path}/{name}")).await.ok()
            })
            .await;
            assert!(spoilt.to_string().contains(LATEST), "{spoilt}");
        }
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/app", env.team_a.namespace);
        eventually("it is spoilt", async || spoil(&env.client, &account).await.ok()).await;
        renews(&env).await;
        // A replica that starts lists all of them.
        env.replica().await
    };
    let replica = bears(&env, &[&env.webhook], attempt).await;
    // A service account with such a field works as before.
    pull_secret_name(&env.team_a.namespace.create_pod(&unnamed_pod("contoso")).await);
    for webhook in [&env.webhook, &replica] {
        let fails = webhook
            .log()
            .into_iter()
            .find(|line| line.contains("retrying with back-off"));
        assert_eq!(fails, None);
    }
}

/// Attempt 13, its first half: annotations as long as an API server takes them.
#[testkit::test]
async fn service_accounts_of_a_quarter_of_a_mebibyte_each_take_no_memory() {
    let env = TestEnv::start().await;
    let path = format!("/api/v1/namespaces/{}/serviceaccounts", env.team_a.namespace);
    let attempt = async {
        for batch in 0..50 {
            let made = (0..8).map(async |n| {
                let annotations = json!({"acr-pull.dev/allowed-namespaces": "x,".repeat(125 * 1024)});
                let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {
                    "name": format!("large-{batch}-{n}"), "annotations": annotations}});
                send(&env.client, "POST", &path, &account).await.unwrap();
            });
            join_all(made).await;
        }
        env.replica().await
    };
    let replica = bears(&env, &[&env.webhook], attempt).await;
    bears(&env, &[&env.webhook, &replica], async {}).await;
    // The control plane is that of other tests too.
    send(&env.client, "DELETE", &path, &Value::Null).await.unwrap();
}

/// How many places of a kind cannot be watched, as `/metrics` has it.
async fn failing(env: &TestEnv, watch: &str) -> u64 {
    env.webhook
        .metric(&format!("watches_failing{{watch=\"{watch}\"}}"))
        .await
}

/// Waits until the webhook's log says that a watch fails.
async fn fails(env: &TestEnv, watch: &str) {
    let words = format!("the watch of {watch} fails");
    eventually("a watch fails", async || {
        env.webhook
            .log()
            .iter()
            .any(|line| line.contains(&words))
            .then_some(())
    })
    .await;
}

/// Ready at each look for longer than a replica is given the benefit of the doubt.
async fn stays_ready(env: &TestEnv) {
    let until = Instant::now() + Duration::from_secs(30);
    while Instant::now() < until {
        assert_eq!(env.webhook.admin_get("/readyz").await, (200, "ok".to_owned()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[testkit::test]
async fn a_namespace_whose_rights_are_gone_refuses_nobody_else() {
    let mut env = TestEnv::leading(&["--namespaces=TEAM_A,TEAM_B"], short_lives).await;
    let binding = env.revoke_cluster_role().await;
    let rights = |namespace: &TestNamespace| namespace.api::<RoleBinding>();
    let (of_a, of_b) = (rights(&env.team_a.namespace), rights(&env.team_b.namespace));
    apply(&of_a, &binding).await;
    apply(&of_b, &binding).await;
    env.restart_webhook().await;
    pull_secret_name(&env.team_a.namespace.create_pod(&pod("app", "contoso")).await);
    renews(&env).await;

    of_a.delete(NAMESPACE, &DeleteParams::default()).await.unwrap();
    for watch in ["ACRAccessTokens", "ServiceAccounts", "ACRPullSecrets", "Pods"] {
        fails(&env, watch).await;
    }
    stays_ready(&env).await;
    assert_eq!(failing(&env, "ServiceAccounts").await, 1);
    renews(&env).await;
    // One that starts now is ready too, and its leader works.
    env.restart_webhook().await;
    renews(&env).await;
    assert_eq!(failing(&env, "ACRPullSecrets").await, 1);
    apply(&of_a, &binding).await;
    eventually("everything is watched again", async || {
        let all = [failing(&env, "ACRPullSecrets").await, failing(&env, "Pods").await];
        (all == [0, 0]).then_some(())
    })
    .await;
    pull_secret_name(&env.team_a.namespace.create_pod(&unnamed_pod("contoso")).await);
}

#[testkit::test]
async fn a_kind_that_is_gone_refuses_nobody_who_does_not_name_it() {
    let mut env = TestEnv::leading(&[], short_lives).await;
    let kinds = Api::<CustomResourceDefinition>::all(env.client.clone());
    let name = "clustergenerators.generators.external-secrets.io";
    let mut kind = kinds.get(name).await.unwrap();
    kinds.delete(name, &DeleteParams::default()).await.unwrap();
    fails(&env, "ClusterGenerators").await;
    stays_ready(&env).await;
    assert_eq!(failing(&env, "ClusterGenerators").await, 1);
    renews(&env).await;
    env.restart_webhook().await;
    renews(&env).await;
    kind.metadata = kube::core::ObjectMeta {
        name: Some(name.to_owned()),
        ..Default::default()
    };
    apply(&kinds, &kind).await;
    eventually("the kind is watched again", async || {
        (failing(&env, "ClusterGenerators").await == 0).then_some(())
    })
    .await;
}

/// JSON of any shape, as often as not one that an API server may take.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,20}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
        "[a-z]{1,8}(\\.[a-z]{1,8}/[a-z]{1,8})?".prop_map(Value::from),
        Just(LATEST.into()),
        Just("0000-01-01T00:00:00Z".into()),
        Just("2026-01-01T00:00:00.123456789+23:59".into()),
        Just("x".repeat(100_000).into()),
    ];
    let nested = leaf.clone().prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,8}(\\.[a-z]{1,8}/[a-z]{1,8})?", inner, 0..4)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    });
    prop_oneof![2 => leaf, 1 => nested]
}

/// Every place in a JSON value, as RFC 6901 writes it: places that hold no others thrice, as more of what is put there is
/// accepted.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let holds_others = value.is_object() || value.is_array();
    all.extend(vec![at.to_owned(); if holds_others { 1 } else { 3 }]);
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                places(
                    value,
                    &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                    all,
                );
            }
        }
        Value::Array(items) => {
            for (n, value) in items.iter().enumerate() {
                places(value, &format!("{at}/{n}"), all);
            }
        }
        _ => {}
    }
}

/// Whatever an API server accepts in any field of any watched kind, the other objects are served.
#[testkit::test]
async fn whatever_an_api_server_accepts_in_a_field_the_others_are_served() {
    const TRIES: usize = 60;
    let env = TestEnv::leading(&[], short_lives).await;
    // Always the same: a test that fails fails again.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let further = [
        "finalizers",
        "ownerReferences",
        "labels",
        "annotations",
        "generateName",
        "selfLink",
        "deletionTimestamp",
    ];
    let mut accepted = 0;
    for attempt in 0..TRIES {
        for (kind, (path, mut object)) in one_of_each(&env.team_a.namespace, &format!("any-{attempt}"))
            .into_iter()
            .enumerate()
        {
            // Fields that an object could have beside those it has.
            for field in further {
                if object["metadata"][field].is_null() {
                    object["metadata"][field] = Value::Null;
                }
            }
            let mut all = Vec::new();
            places(&object, "", &mut all);
            let any = (any_json(), prop::sample::select(all))
                .new_tree(&mut runner)
                .unwrap()
                .current();
            let (value, at) = any;
            if at.is_empty() || at == "/metadata/name" || at == "/metadata" {
                continue;
            }
            *object.pointer_mut(&at).unwrap() = value.clone();
            let made = send(&env.client, "POST", &path, &object).await;
            let Ok(made) = made else { continue };
            accepted += 1;
            // What may be written of it later only.
            let own = format!("{path}/{}", made["metadata"]["name"].as_str().unwrap());
            let _ = spoil(&env.client, &own).await;
            if kind == 6 {
                let status = any_json().new_tree(&mut runner).unwrap().current();
                let mut changed = made.clone();
                changed["metadata"]["resourceVersion"] = Value::Null;
                changed["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Issued", "message": "",
                    "lastTransitionTime": LATEST}], "expirationTime": LATEST, "lastRenewalTime": "0001-01-01T00:00:00Z"});
                let _ = send(&env.client, "PUT", &format!("{own}/status"), &changed).await;
                changed["status"] = status;
                let _ = send(&env.client, "PUT", &format!("{own}/status"), &changed).await;
            }
        }
    }
    assert!(accepted > TRIES, "only {accepted} objects were accepted");
    let attempt = async {
        renews(&env).await;
        env.replica().await
    };
    let replica = bears(&env, &[&env.webhook], attempt).await;
    bears(&env, &[&replica], async {}).await;
}
