use super::*;
use crate::{generator::ACRAccessToken, pull_secret::ACRPullSecret};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::core::{ObjectList, WatchEvent};
use proptest::prelude::*;
use serde_json::{Value, json};

type ServiceAccountItem = Item<PartialObjectMeta<ServiceAccount>>;

/// The latest time that RFC 3339 can express, which `jiff` cannot represent.
const LATEST: &str = "9999-12-31T23:59:59Z";

fn decode<K: Watched>(object: &Value) -> Item<K> {
    serde_json::from_str(&object.to_string()).unwrap()
}

fn generator(name: &str, spec: Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "team-a", "uid": "u", "resourceVersion": "7"}, "spec": spec})
}

#[test]
fn managed_fields_are_never_decoded() {
    for fields in [json!([{"time": LATEST}]), json!({"not": "a list"}), json!(7)] {
        let account: ServiceAccountItem =
            decode(&json!({"metadata": {"name": "app", "managedFields": fields}}));
        assert_eq!(account.meta().name.as_deref(), Some("app"));
        assert_eq!(account.meta().managed_fields, None);
    }
}

#[test]
fn an_unparsable_deletion_timestamp_still_marks_an_object_as_deleted() {
    let account: ServiceAccountItem =
        decode(&json!({"metadata": {"name": "app", "deletionTimestamp": LATEST}}));
    assert!(account.meta().deletion_timestamp.is_some());
    let account: ServiceAccountItem =
        decode(&json!({"metadata": {"name": "app", "creationTimestamp": LATEST}}));
    assert_eq!(account.meta().creation_timestamp, None);
}

#[test]
fn only_known_labels_and_annotations_are_kept_up_to_a_limit() {
    let mut all = serde_json::Map::new();
    all.insert(
        "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
        "x".into(),
    );
    all.insert(
        "acr-pull.dev/allowed-namespaces".to_owned(),
        "é".repeat(200_000).into(),
    );
    let account: ServiceAccountItem =
        decode(&json!({"metadata": {"name": "app", "annotations": all, "labels": null}}));
    let kept = account.meta().annotations.clone().unwrap();
    assert_eq!(kept.len(), 1);
    let value = &kept["acr-pull.dev/allowed-namespaces"];
    assert!(
        value.len() > MAX_VALUE_BYTES && value.len() <= MAX_VALUE_BYTES + 4,
        "{}",
        value.len()
    );
    let many: serde_json::Map<_, _> = (0..1000)
        .map(|n| (format!("acr-pull.dev/{n}"), "x".into()))
        .collect();
    let account: ServiceAccountItem = decode(&json!({"metadata": {"name": "app", "labels": many}}));
    assert_eq!(account.meta().labels.as_ref().unwrap().len(), MAX_ENTRIES);
}

#[test]
fn all_labels_and_annotations_that_the_program_reads_are_kept() {
    for key in crate::generator::SERVICE_ACCOUNT_ANNOTATIONS {
        assert!(KEY_PREFIXES.iter().any(|prefix| key.starts_with(prefix)), "{key}");
    }
    for key in [
        crate::admission::PULL_SECRETS_ANNOTATION,
        crate::admission::INJECTED_LABEL,
        crate::admission::ACCESS_TOKEN_ANNOTATION,
    ] {
        assert!(KEY_PREFIXES.iter().any(|prefix| key.starts_with(prefix)), "{key}");
    }
}

#[test]
fn an_undecodable_object_keeps_its_metadata_and_does_not_fail_the_list() {
    let good = json!({"registry": "contoso.azurecr.io", "auth": {}});
    let list = json!({
        "metadata": {"resourceVersion": "9"},
        "items": [generator("one", good.clone()), generator("broken", json!("text")), generator("two", good)],
    });
    let list: ObjectList<Item<ACRAccessToken>> = serde_json::from_str(&list.to_string()).unwrap();
    let read: Vec<_> = list.items.iter().map(|item| item.0.is_ok()).collect();
    assert_eq!(read, [true, false, true]);
    let broken = &list.items[1];
    assert_eq!(broken.meta().name.as_deref(), Some("broken"));
    assert_eq!(broken.meta().resource_version.as_deref(), Some("7"));
    assert!(
        broken.0.as_ref().unwrap_err().error.contains("invalid type"),
        "{broken:?}"
    );
}

#[test]
fn an_object_that_is_too_large_is_not_decoded() {
    let audiences = vec!["a"; 350_000];
    let spec = json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {"serviceAccountRef": {"name": "a", "audiences": audiences}}}});
    let item: Item<ACRAccessToken> = decode(&generator("large", spec));
    let why = item.0.unwrap_err().error;
    assert!(why.contains("bytes of JSON"), "{why}");
}

#[test]
fn watch_events_are_decoded_like_list_items() {
    let event = format!(
        r#"{{"type":"ADDED","object":{}}}"#,
        generator("broken", json!([]))
    );
    let WatchEvent::Added(item) = serde_json::from_str::<WatchEvent<Item<ACRAccessToken>>>(&event).unwrap()
    else {
        panic!("the event is not ADDED");
    };
    assert_eq!(item.meta().name.as_deref(), Some("broken"));
    assert!(item.0.is_err());
}

/// JSON of any shape.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(LATEST.into()),
        Just("-9999-01-01T00:00:00Z".into()),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,10}", inner, 0..4)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_spec_status_or_managed_fields_fail_a_list(
        spec in any_json(), status in any_json(), fields in any_json(), finalizers in any_json(),
    ) {
        let object = json!({
            "metadata": {"name": "x", "namespace": "team-a", "managedFields": fields, "finalizers": finalizers},
            "spec": spec,
            "status": status,
        });
        let list = json!({"metadata": {}, "items": [object, generator("good", json!({"registry": "r", "auth": {}}))]});
        let generators: ObjectList<Item<ACRAccessToken>> = serde_json::from_str(&list.to_string()).unwrap();
        prop_assert!(generators.items[1].0.is_ok());
        let pull_secrets: ObjectList<Item<ACRPullSecret>> = serde_json::from_str(&list.to_string()).unwrap();
        prop_assert_eq!(pull_secrets.items[0].meta().name.as_deref(), Some("x"));
        let accounts: ObjectList<ServiceAccountItem> = serde_json::from_str(&list.to_string()).unwrap();
        prop_assert!(accounts.items[0].0.is_ok());
    }
}
