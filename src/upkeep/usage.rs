//! Which pull secrets live Pods name, from a watch of the Pods' metadata.

use super::Key;
use crate::{
    admission::PULL_SECRETS,
    watch::{Change, Item},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// A Pod's metadata.
type Labelled = Item<PartialObjectMeta<Pod>>;

/// Who uses what; nothing is known until the watch has been filled once.
#[derive(Default)]
pub struct Usage(Mutex<Index>);

/// Whether a pull secret is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The watch is not filled, or has not been since it failed.
    Unknown,
    /// Live Pods name it.
    Used,
    /// No live Pod has named it for so long, as far back as we have looked.
    Unused(Duration),
}

#[derive(Default)]
struct Index {
    /// Each Pod's pull secrets.
    pods: HashMap<Key, Box<[String]>>,
    /// How many Pods name each pull secret.
    users: HashMap<Key, u32>,
    /// When the last of them went.
    unused: HashMap<Key, Instant>,
    /// Since when all Pods are known.
    filled: Option<Instant>,
    /// The namespaces whose Pods may be others than those known; none stands for all.
    failing: HashSet<Option<String>>,
}

// === impl Usage ===

impl Usage {
    /// Takes in a change; returns the pull secrets that have come into use or gone out of it.
    pub fn observe(&self, change: &Change<Labelled>) -> Vec<Key> {
        let mut index = self.lock();
        match change {
            Change::There(pod) => index.set(key(pod), names(pod)),
            Change::Gone(pod) => index.set(key_of(pod), Box::default()),
            Change::Listed(namespace, all) => index.listed(namespace.as_deref(), all),
            Change::Whole => {
                index.filled.get_or_insert_with(Instant::now);
                Vec::new()
            }
            Change::Fails(namespace) => {
                index.failing.insert(namespace.clone());
                Vec::new()
            }
            Change::Works(namespace) => {
                index.failing.remove(namespace);
                Vec::new()
            }
        }
    }

    /// Whether this pull secret is in use.
    pub fn of(&self, pull_secret: &Key) -> Use {
        let index = self.lock();
        if index.users.contains_key(pull_secret) {
            return Use::Used;
        }
        match index.filled {
            Some(filled) if !index.fails(&pull_secret.0) => {
                let since = index.unused.get(pull_secret).copied().unwrap_or(filled);
                Use::Unused(since.elapsed())
            }
            _ => Use::Unknown,
        }
    }

    /// The pull secrets that a live Pod names.
    pub fn named_by(&self, pod: &Key) -> Box<[String]> {
        self.lock().pods.get(pod).cloned().unwrap_or_default()
    }

    /// A live Pod that names this pull secret.
    pub fn user_of(&self, pull_secret: &Key) -> Option<Key> {
        let index = self.lock();
        let (namespace, name) = pull_secret;
        index
            .pods
            .iter()
            .find(|((pods, _), names)| pods == namespace && names.contains(name))
            .map(|(pod, _)| pod.clone())
    }

    /// The pull secret is gone.
    pub fn forget(&self, pull_secret: &Key) {
        self.lock().unused.remove(pull_secret);
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Index ===

impl Index {
    fn fails(&self, namespace: &str) -> bool {
        self.failing
            .iter()
            .any(|failing| failing.as_deref().is_none_or(|failing| failing == namespace))
    }

    fn set(&mut self, pod: Key, names: Box<[String]>) -> Vec<Key> {
        let namespace = pod.0.clone();
        let before = match names.is_empty() {
            true => self.pods.remove(&pod),
            false => self.pods.insert(pod, names.clone()),
        };
        let before = before.unwrap_or_default();
        if before == names {
            return Vec::new();
        }
        let mut changed = Vec::new();
        for name in &names {
            let key = (namespace.clone(), name.clone());
            let users = self.users.entry(key.clone()).or_default();
            *users += 1;
            if *users == 1 {
                self.unused.remove(&key);
                changed.push(key);
            }
        }
        for name in before {
            let key = (namespace.clone(), name);
            if let Some(users) = self.users.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(&key);
                    self.unused.insert(key.clone(), Instant::now());
                    changed.push(key);
                }
            }
        }
        changed
    }

    /// Whatever is not in the list went while nobody looked.
    fn listed(&mut self, namespace: Option<&str>, all: &HashSet<ObjectRef<Labelled>>) -> Vec<Key> {
        let here = |pod: &&Key| namespace.is_none_or(|namespace| pod.0 == namespace);
        let gone: Vec<_> = self
            .pods
            .keys()
            .filter(here)
            .filter(|(namespace, name)| !all.contains(&ObjectRef::new(name).within(namespace)))
            .cloned()
            .collect();
        gone.into_iter()
            .flat_map(|pod| self.set(pod, Box::default()))
            .collect()
    }
}

fn key_of(pod: &ObjectRef<Labelled>) -> Key {
    (pod.namespace.clone().unwrap_or_default(), pod.name.clone())
}

fn key(pod: &Labelled) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

fn names(pod: &Labelled) -> Box<[String]> {
    let list = pod
        .annotations()
        .get(PULL_SECRETS)
        .map(String::as_str)
        .unwrap_or_default();
    list.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ObjectMeta;

    fn pod(name: &str, pull_secrets: &str) -> Labelled {
        let metadata = ObjectMeta {
            namespace: Some("team-a".to_owned()),
            name: Some(name.to_owned()),
            annotations: Some([(PULL_SECRETS.to_owned(), pull_secrets.to_owned())].into()),
            ..ObjectMeta::default()
        };
        Item(Ok(PartialObjectMeta {
            metadata,
            ..PartialObjectMeta::default()
        }))
    }

    fn secret(name: &str) -> Key {
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

    #[tokio::test(start_paused = true)]
    async fn nothing_is_unused_before_all_pods_are_known_nor_while_the_watch_fails() {
        let usage = Usage::default();
        usage.observe(&there(pod("one", "a")));
        assert_eq!(
            (usage.of(&secret("a")), usage.of(&secret("b"))),
            (Use::Used, Use::Unknown)
        );
        usage.observe(&Change::Whole);
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
        assert_eq!(usage.of(&secret("b")), Use::Unused(Duration::from_secs(7)));
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
        assert_eq!(usage.user_of(&secret("b")), Some(secret("three")));
        assert_eq!(&*usage.named_by(&secret("two")), ["a"]);
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
}
