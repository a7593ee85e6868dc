use super::*;
use kube::core::ObjectMeta;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn annotated(name: &str, annotations: &[(&str, &str)]) -> Labelled {
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
fn pod(name: &str, pull_secrets: &str) -> Labelled {
    let names = pull_secrets.split(',').map(|name| secret(name).1);
    let list = names.collect::<Vec<_>>().join(",");
    annotated(name, &[(PULL_SECRETS_ANNOTATION, &list)])
}

fn secret(name: &str) -> Key {
    ("team-a".to_owned(), format!("acr-pull-{name}"))
}

fn pod_key(name: &str) -> Key {
    ("team-a".to_owned(), name.to_owned())
}

fn there(pod: Labelled) -> Change<Labelled> {
    Change::There(pod)
}

fn gone(name: &str) -> Change<Labelled> {
    Change::Gone(ObjectRef::new(name).within("team-a"))
}

fn listed(names: &[&str], namespace: Option<&str>) -> Change<Labelled> {
    let all = names.iter().map(|name| ObjectRef::new(name).within("team-a"));
    Change::Listed(namespace.map(str::to_owned), all.collect())
}

fn filled(pods: &[(&str, &str)]) -> Usage {
    let usage = Usage::default();
    fill(&usage, pods);
    usage
}

fn fill(usage: &Usage, pods: &[(&str, &str)]) -> Vec<Key> {
    for (name, pull_secrets) in pods {
        usage.observe(&there(pod(name, pull_secrets)));
    }
    let names: Vec<_> = pods.iter().map(|(name, _)| *name).collect();
    let changed = usage.observe(&listed(&names, None));
    usage.observe(&Change::Whole);
    changed
}

fn users(usage: &Usage, name: &str, after: Option<&str>, most: usize) -> Vec<String> {
    let after = after.map(pod_key);
    let users = usage.users_of(&secret(name), after.as_ref(), most);
    users.iter().map(|pod| pod.1.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_unused_before_all_pods_are_known_nor_while_the_watch_fails() {
    let usage = Usage::default();
    usage.observe(&there(pod("one", "a")));
    assert_eq!(
        (usage.of(&secret("a")), usage.of(&secret("b"))),
        (Use::Used, Use::Unknown)
    );
    usage.observe(&Change::Whole);
    assert_eq!(usage.of(&secret("b")), Use::Unused(Duration::ZERO));
    tokio::time::advance(Duration::from_secs(7)).await;
    assert_eq!(usage.of(&secret("b")), Use::Unused(Duration::from_secs(7)));
    usage.observe(&Change::Fails(None));
    assert_eq!(
        (usage.of(&secret("a")), usage.of(&secret("b"))),
        (Use::Used, Use::Unknown)
    );
    usage.observe(&there(pod("one", "a")));
    usage.observe(&listed(&["one"], None));
    assert_eq!(usage.of(&secret("b")), Use::Unknown);
    usage.observe(&Change::Works(None));
    usage.observe(&Change::Fails(Some("team-b".to_owned())));
    assert_eq!(usage.of(&secret("b")), Use::Unused(Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_what_never_had_a_pod_begins_when_it_is_first_seen() {
    let usage = filled(&[]);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(usage.of(&secret("new")), Use::Unused(Duration::ZERO));
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(usage.of(&secret("new")), Use::Unused(Duration::from_secs(5)));
    usage.forget(&secret("new"));
    assert_eq!(usage.of(&secret("new")), Use::Unused(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_pull_secret_is_in_use_until_its_last_pod_goes() {
    let usage = filled(&[("one", "a,b"), ("two", "a")]);
    assert_eq!(usage.observe(&gone("one")), [secret("b")]);
    assert_eq!(usage.of(&secret("a")), Use::Used);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(usage.of(&secret("b")), Use::Unused(Duration::from_secs(3)));
    assert_eq!(usage.observe(&there(pod("three", "b"))), [secret("b")]);
    assert_eq!(usage.of(&secret("b")), Use::Used);
    assert_eq!(users(&usage, "b", None, 4), ["three"]);
    assert_eq!(usage.named_by(&pod_key("two")), [secret("a")]);
}

#[test]
fn the_users_of_a_pull_secret_are_shown_in_turn() {
    let usage = filled(&[("one", "a"), ("three", "a"), ("two", "a"), ("other", "b")]);
    assert_eq!(users(&usage, "a", None, 2), ["one", "three"]);
    assert_eq!(users(&usage, "a", Some("three"), 2), ["two", "one"]);
    assert_eq!(users(&usage, "a", Some("two"), 9), ["one", "three", "two"]);
    assert!(users(&usage, "c", None, 9).is_empty());
}

#[tokio::test(start_paused = true)]
async fn pods_that_went_while_nobody_looked_are_missed_at_the_next_list() {
    let usage = filled(&[("one", "a"), ("two", "b")]);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(fill(&usage, &[("two", "b"), ("three", "c")]), [secret("a")]);
    // Its grace begins now: nobody knows when it went.
    assert_eq!(usage.of(&secret("a")), Use::Unused(Duration::ZERO));
    assert_eq!(
        (usage.of(&secret("b")), usage.of(&secret("c"))),
        (Use::Used, Use::Used)
    );
}

#[test]
fn a_list_of_one_namespace_says_nothing_of_the_others() {
    let usage = filled(&[("one", "a"), ("two", "b")]);
    assert_eq!(usage.observe(&listed(&[], Some("team-b"))), []);
    assert_eq!(usage.observe(&listed(&["two"], Some("team-a"))), [secret("a")]);
}

#[test]
fn the_mirror_of_a_static_pod_names_nothing() {
    let list = secret("a").1;
    assert_eq!(
        names(&annotated("pod", &[(PULL_SECRETS_ANNOTATION, &list)])).len(),
        1
    );
    assert!(
        names(&annotated(
            "pod",
            &[(PULL_SECRETS_ANNOTATION, &list), (MIRROR, "x")]
        ))
        .is_empty()
    );
}

proptest! {
    /// Whatever a Pod says, it is worth 16 pull secrets at most, each once and of our grammar.
    #[test]
    fn the_work_for_one_pod_is_bounded(
        items in proptest::collection::vec("(acr-pull-)?[a-cA. -]{0,3}", 0..200),
        again in proptest::collection::vec("(acr-pull-)?[a-c]{0,3}", 0..200),
    ) {
        let usage = filled(&[]);
        let mut used = HashSet::new();
        for items in [items, again] {
            let changed = usage.observe(&there(annotated("pod", &[(PULL_SECRETS_ANNOTATION, &items.join(","))])));
            prop_assert!(changed.len() <= 2 * MAX_REFERENCES, "{changed:?}");
            prop_assert_eq!(changed.iter().collect::<HashSet<_>>().len(), changed.len());
            prop_assert!(changed.iter().all(|(_, name)| is_pull_secret(name)), "{:?}", changed);
            used = usage.lock().users.keys().cloned().collect();
            prop_assert!(used.len() <= MAX_REFERENCES);
            prop_assert_eq!(&usage.named_by(&pod_key("pod")).into_iter().collect::<HashSet<_>>(), &used);
            for key in &used {
                prop_assert_eq!(usage.users_of(key, None, 9).len(), 1);
            }
        }
        let last: HashSet<_> = usage.observe(&gone("pod")).into_iter().collect();
        prop_assert_eq!(last, used);
        prop_assert!(usage.lock().users.is_empty() && usage.lock().pods.is_empty());
    }
}
