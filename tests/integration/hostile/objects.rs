//! Objects with unexpected values that an API server accepts.

use super::unaffected_by;
use http::Request;
use jiff::Timestamp;
use kube::Client;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use testkit::{
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{ANNOTATION, cluster_generator_spec, generator_spec, pull_secret_name, unnamed_pod},
};

/// The last time in RFC 3339. Go can represent it, and jiff cannot.
const LATEST: &str = "9999-12-31T23:59:59Z";

/// Sends a request with untyped JSON as the administrator.
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

/// Sets a time of the year 9999 in the `managedFields` of an object, and returns the object.
async fn corrupt(client: &Client, path: &str) -> Result<Value, kube::Error> {
    let mut object = send(client, "GET", path, &Value::Null).await?;
    if object["metadata"]["labels"].is_null() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["stranger"] = "yes".into();
    let mut object = send(client, "PUT", path, &object).await?;
    // An API server ignores a change of a timestamp alone, so the label of another manager changes too.
    object["metadata"]["labels"]["changed"] = "yes".into();
    object["metadata"]["managedFields"] = json!([{
        "manager": "stranger", "operation": "Update", "apiVersion": object["apiVersion"], "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:stranger": {}}}}, "time": LATEST}]);
    send(client, "PUT", path, &object).await
}

fn object(version: &str, kind: &str, metadata: Value, fields: Value) -> Value {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

/// An object of each watched kind with this name, and the path of its collection.
fn one_of_each(namespace: &TestNamespace, name: &str) -> Vec<(String, Value)> {
    let core = format!("/api/v1/namespaces/{namespace}");
    let generators = "generators.external-secrets.io/v1alpha1";
    let named = || json!({"name": name});
    let labelled = |key: &str, value: &str| json!({"name": name, "labels": {key: value}});
    let pod = json!({"spec": {"containers": [{"name": "app", "image": "example.com/app"}]}});
    let event = json!({
        "involvedObject": {"kind": "Pod", "namespace": namespace, "name": "app"},
        "type": "Warning",
        "reason": "FailedToRetrieveImagePullSecret",
        "message": "Unable to retrieve some image pull secrets (regcred); attempting to pull the image may not succeed.",
    });
    let pull_secret = json!({"spec": {
        "generator": {"kind": "ACRAccessToken", "name": "contoso"},
        "serviceAccountName": "app",
    }});
    vec![
        (
            format!("{core}/serviceaccounts"),
            object("v1", "ServiceAccount", named(), json!({})),
        ),
        (
            format!("/apis/{generators}/namespaces/{namespace}/acraccesstokens"),
            object(
                generators,
                "ACRAccessToken",
                named(),
                json!({"spec": generator_spec(json!({}))}),
            ),
        ),
        (
            format!("/apis/{generators}/clustergenerators"),
            object(
                generators,
                "ClusterGenerator",
                named(),
                json!({"spec": cluster_generator_spec(json!({}))}),
            ),
        ),
        (
            "/api/v1/namespaces".to_owned(),
            object("v1", "Namespace", labelled(ANNOTATION, "contoso"), json!({})),
        ),
        (
            format!("{core}/pods"),
            object("v1", "Pod", labelled("acr-pull.dev/injected", "true"), pod),
        ),
        (format!("{core}/events"), object("v1", "Event", named(), event)),
        (
            format!("/apis/acr-pull.dev/v1alpha1/namespaces/{namespace}/acrpullsecrets"),
            object(
                "acr-pull.dev/v1alpha1",
                "ACRPullSecret",
                json!({"name": format!("acr-pull-{name}")}),
                pull_secret,
            ),
        ),
    ]
}

/// Asserts that a Pod of team B is admitted, and that its pull secret is renewed.
pub async fn check_renewal(env: &TestEnv) {
    let namespace = &env.team_b.namespace;
    let name = pull_secret_name(&namespace.create_pod(&unnamed_pod("contoso")).await);
    let now = Timestamp::now();
    eventually("the leader renews", async || {
        (namespace.status(&name).await.last_renewal_time?.0 > now).then_some(())
    })
    .await;
}

/// An undecodable time in an object of each watched kind.
#[testkit::test]
async fn no_time_in_managed_fields_hides_an_object() {
    let env = TestEnv::leading(&[], token_lifetime(12)).await;
    let attempt = async {
        for (path, object) in one_of_each(&env.team_a.namespace, "corrupted") {
            send(&env.client, "POST", &path, &object).await.unwrap();
            let name = object["metadata"]["name"].as_str().unwrap();
            // Controllers update some of the objects at the same time.
            let corrupted = eventually("the object is corrupted", async || {
                corrupt(&env.client, &format!("{path}/{name}")).await.ok()
            })
            .await;
            assert!(corrupted.to_string().contains(LATEST), "{corrupted}");
        }
        let account = format!("/api/v1/namespaces/{}/serviceaccounts/app", env.team_a.namespace);
        eventually("the service account is corrupted", async || {
            corrupt(&env.client, &account).await.ok()
        })
        .await;
        check_renewal(&env).await;
        // A new replica lists all objects.
        env.replica().await
    };
    let replica = unaffected_by(&env, &[&env.webhook], attempt).await;
    // The corrupted service account is still used.
    pull_secret_name(&env.team_a.namespace.create_pod(&unnamed_pod("contoso")).await);
    for webhook in [&env.webhook, &replica] {
        assert_eq!(webhook.log_lines("retrying with back-off"), [""; 0]);
    }
}

/// Any JSON value. An API server accepts about half of these values.
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

/// All places in a JSON value as JSON Pointers. Leaves are listed three times: the API server accepts more values
/// there.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    let is_inner = value.is_object() || value.is_array();
    all.extend(vec![at.to_owned(); if is_inner { 1 } else { 3 }]);
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

/// An object of a watched kind with a random value in a random field, or nothing if the name would change.
fn with_any_value(mut object: Value, runner: &mut TestRunner) -> Option<Value> {
    let more = [
        "finalizers",
        "ownerReferences",
        "labels",
        "annotations",
        "generateName",
        "selfLink",
        "deletionTimestamp",
    ];
    for field in more {
        if object["metadata"][field].is_null() {
            object["metadata"][field] = Value::Null;
        }
    }
    let mut all = Vec::new();
    places(&object, "", &mut all);
    let any = (any_json(), prop::sample::select(all));
    let (value, at) = any.new_tree(runner).unwrap().current();
    if at.is_empty() || at == "/metadata/name" || at == "/metadata" {
        return None;
    }
    *object.pointer_mut(&at).unwrap() = value;
    Some(object)
}

/// Tries to write statuses of a pull secret with absurd times and with random values.
async fn write_any_status(client: &Client, path: &str, mut object: Value, runner: &mut TestRunner) {
    let status = any_json().new_tree(runner).unwrap().current();
    object["metadata"]["resourceVersion"] = Value::Null;
    object["status"] = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Issued", "message": "",
        "lastTransitionTime": LATEST}], "expirationTime": LATEST, "lastRenewalTime": "0001-01-01T00:00:00Z"});
    let _ = send(client, "PUT", &format!("{path}/status"), &object).await;
    object["status"] = status;
    let _ = send(client, "PUT", &format!("{path}/status"), &object).await;
}

/// Any value that an API server accepts in a field of a watched kind.
#[testkit::test]
async fn no_accepted_value_of_any_field_affects_other_objects() {
    const TRIES: usize = 60;
    let env = TestEnv::leading(&[], token_lifetime(12)).await;
    // The same values in each run: a failure can be reproduced.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut accepted = 0;
    for attempt in 0..TRIES {
        for (path, object) in one_of_each(&env.team_a.namespace, &format!("any-{attempt}")) {
            let Some(object) = with_any_value(object, &mut runner) else {
                continue;
            };
            let Ok(created) = send(&env.client, "POST", &path, &object).await else {
                continue;
            };
            accepted += 1;
            // The API server accepts managedFields only in an update.
            let own = format!("{path}/{}", created["metadata"]["name"].as_str().unwrap());
            let _ = corrupt(&env.client, &own).await;
            if path.ends_with("acrpullsecrets") {
                write_any_status(&env.client, &own, created, &mut runner).await;
            }
        }
    }
    assert!(accepted > TRIES, "only {accepted} objects were accepted");
    let attempt = async {
        check_renewal(&env).await;
        env.replica().await
    };
    let replica = unaffected_by(&env, &[&env.webhook], attempt).await;
    unaffected_by(&env, &[&replica], async {}).await;
}
