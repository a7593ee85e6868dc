use super::*;
use kube::core::ObjectMeta;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn annotated(name: &str, annotations: &[(&str, &str)]) -> PodItem {
    let annotations: BTreeMap<_, _> = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let metadata = ObjectMeta {
        namespace: Some("team-a".to_owned()),
        name: Some(name.to_owned()),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    };
    Item(Ok(PartialObjectMeta {
        metadata,
        ..PartialObjectMeta::default()
    }))
}

/// A Pod that names pull secrets of these short names.
fn pod(name: &str, pull_secrets: &str) -> PodItem {
    let names = pull_secrets.split(',').map(|name| secret(name).name.to_string());
    let list = names.collect::<Vec<_>>().join(",");
    annotated(name, &[(PULL_SECRETS_ANNOTATION, &list)])
}

fn secret(name: &str) -> NamespacedName {
    key(&format!("acr-pull-{name}"))
}

fn key(name: &str) -> NamespacedName {
    NamespacedName::new("team-a", name).unwrap()
}

fn applied(pod: PodItem) -> Change<PodItem> {
    Change::Applied(pod)
}

fn deleted(name: &str) -> Change<PodItem> {
    Change::Deleted(ObjectRef::new(name).within("team-a"))
}

fn relisted(names: &[&str], namespace: Option<&str>) -> Change<PodItem> {
    let all = names.iter().map(|name| ObjectRef::new(name).within("team-a"));
    Change::Relisted(namespace.and_then(NamespaceName::new), all.collect())
}

fn synced(pods: &[(&str, &str)]) -> UsageIndex {
    let usage = UsageIndex::default();
    sync(&usage, pods);
    usage
}

fn sync(usage: &UsageIndex, pods: &[(&str, &str)]) -> Vec<NamespacedName> {
    for (name, pull_secrets) in pods {
        usage.observe(&applied(pod(name, pull_secrets)));
    }
    let names: Vec<_> = pods.iter().map(|(name, _)| *name).collect();
    let changed = usage.observe(&relisted(&names, None));
    usage.observe(&Change::Synced);
    changed
}

fn pods_of(usage: &UsageIndex, name: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(key);
    let pods = usage.pods_naming(&secret(name), after.as_ref(), limit);
    pods.iter().map(|pod| pod.name.to_string()).collect()
}

#[test]
fn the_pods_of_a_pull_secret_share_the_texts_of_its_namespace_and_its_name() {
    let usage = synced(&[("one", "a,b"), ("two", "b"), ("three", "b")]);
    let texts = |pod: &str| {
        let index = usage.0.lock();
        let (pod, names) = index.secrets_by_pod.get_key_value(&key(pod)).unwrap();
        let name = names.iter().find(|name| **name == secret("b").name).unwrap();
        (pod.namespace.as_ptr(), name.as_ptr())
    };
    assert_eq!(texts("two"), texts("one"));
    assert_eq!(texts("three"), texts("one"));
    usage.observe(&applied(pod("three", "a,b")));
    assert_eq!(texts("three"), texts("one"));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_unused_before_pods_are_listed_or_while_the_watch_fails() {
    let usage = UsageIndex::default();
    usage.observe(&applied(pod("one", "a")));
    assert_eq!(
        (usage.usage_of(&secret("a")), usage.usage_of(&secret("b"))),
        (Usage::Used, Usage::Unknown)
    );
    usage.observe(&Change::Synced);
    assert_eq!(usage.usage_of(&secret("b")), Usage::Unused(Duration::ZERO));
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(
        usage.usage_of(&secret("b")),
        Usage::Unused(Duration::from_secs(7))
    );
    usage.observe(&Change::Stale(None));
    assert_eq!(
        (usage.usage_of(&secret("a")), usage.usage_of(&secret("b"))),
        (Usage::Used, Usage::Unknown)
    );
    usage.observe(&applied(pod("one", "a")));
    usage.observe(&relisted(&["one"], None));
    assert_eq!(usage.usage_of(&secret("b")), Usage::Unknown);
    usage.observe(&Change::Recovered(None));
    usage.observe(&Change::Stale(NamespaceName::new("team-b")));
    assert_eq!(
        usage.usage_of(&secret("b")),
        Usage::Unused(Duration::from_secs(7))
    );
}

#[tokio::test(start_paused = true)]
async fn a_pull_secret_without_pods_is_unused_since_it_was_first_seen() {
    let usage = synced(&[]);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(usage.usage_of(&secret("new")), Usage::Unused(Duration::ZERO));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(
        usage.usage_of(&secret("new")),
        Usage::Unused(Duration::from_secs(5))
    );
    usage.forget(&secret("new"));
    assert_eq!(usage.usage_of(&secret("new")), Usage::Unused(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_pull_secret_is_used_until_its_last_pod_is_deleted() {
    let usage = synced(&[("one", "a,b"), ("two", "a")]);
    assert_eq!(usage.observe(&deleted("one")), [secret("b")]);
    assert_eq!(usage.usage_of(&secret("a")), Usage::Used);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(
        usage.usage_of(&secret("b")),
        Usage::Unused(Duration::from_secs(3))
    );
    assert_eq!(usage.observe(&applied(pod("three", "b"))), [secret("b")]);
    assert_eq!(usage.usage_of(&secret("b")), Usage::Used);
    assert_eq!(pods_of(&usage, "b", None, 4), ["three"]);
    assert_eq!(usage.named_by(&key("two")), [secret("a")]);
}

#[test]
fn pods_naming_a_pull_secret_are_returned_in_cyclic_order() {
    let usage = synced(&[("one", "a"), ("three", "a"), ("two", "a"), ("other", "b")]);
    assert_eq!(pods_of(&usage, "a", None, 2), ["one", "three"]);
    assert_eq!(pods_of(&usage, "a", Some("three"), 2), ["two", "one"]);
    assert_eq!(pods_of(&usage, "a", Some("two"), 9), ["one", "three", "two"]);
    assert!(pods_of(&usage, "c", None, 9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_deleted_between_watches_are_removed_by_the_next_list() {
    let usage = synced(&[("one", "a"), ("two", "b")]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(sync(&usage, &[("two", "b"), ("three", "c")]), [secret("a")]);
    // The grace starts now, as it is unknown when the Pod was deleted.
    assert_eq!(usage.usage_of(&secret("a")), Usage::Unused(Duration::ZERO));
    assert_eq!(
        (usage.usage_of(&secret("b")), usage.usage_of(&secret("c"))),
        (Usage::Used, Usage::Used)
    );
}

#[test]
fn a_list_of_one_namespace_does_not_affect_the_others() {
    let usage = synced(&[("one", "a"), ("two", "b")]);
    assert_eq!(usage.observe(&relisted(&[], Some("team-b"))), []);
    assert_eq!(usage.observe(&relisted(&["two"], Some("team-a"))), [secret("a")]);
}

#[test]
fn a_mirror_pod_names_no_pull_secrets() {
    let list = secret("a").name;
    assert_eq!(
        pull_secrets(&annotated("pod", &[(PULL_SECRETS_ANNOTATION, &list)])).len(),
        1
    );
    assert!(
        pull_secrets(&annotated(
            "pod",
            &[(PULL_SECRETS_ANNOTATION, &list), (MIRROR_POD_ANNOTATION, "x")]
        ))
        .is_empty()
    );
}

proptest! {
    /// A Pod counts for at most 16 valid pull secrets, without duplicates, whatever its annotation contains.
    #[test]
    fn the_work_for_one_pod_is_bounded(
        items in proptest::collection::vec("(acr-pull-)?[a-cA. -]{0,3}", 0..200),
        again in proptest::collection::vec("(acr-pull-)?[a-c]{0,3}", 0..200),
    ) {
        let usage = synced(&[]);
        let mut used = HashSet::new();
        for items in [items, again] {
            let changed = usage.observe(&applied(annotated("pod", &[(PULL_SECRETS_ANNOTATION, &items.join(","))])));
            prop_assert!(changed.len() <= 2 * MAX_REFERENCES, "{changed:?}");
            prop_assert_eq!(changed.iter().collect::<HashSet<_>>().len(), changed.len());
            prop_assert!(changed.iter().all(|key| parse_name(&key.name).is_some()), "{:?}", changed);
            used = usage.0.lock().pods_by_secret.keys().cloned().collect();
            prop_assert!(used.len() <= MAX_REFERENCES);
            prop_assert_eq!(&usage.named_by(&key("pod")).into_iter().collect::<HashSet<_>>(), &used);
            for key in &used {
                prop_assert_eq!(usage.pods_naming(key, None, 9).len(), 1);
            }
        }
        let last: HashSet<_> = usage.observe(&deleted("pod")).into_iter().collect();
        prop_assert_eq!(last, used);
        prop_assert!(usage.0.lock().pods_by_secret.is_empty() && usage.0.lock().secrets_by_pod.is_empty());
    }
}
