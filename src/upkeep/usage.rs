//! Which pull secrets live Pods name, from a watch of the Pods' metadata.
//!
//! What the metadata says is a claim of whoever may write Pods. It decides alone about what costs nobody else: the renewal
//! and the end of an `ACRPullSecret` that exists in the namespace of the Pod. Before anything is made or repaired for a Pod,
//! the Pod itself is read.

use super::Key;
use crate::{
    admission::{MAX_REFERENCES, PULL_SECRETS_ANNOTATION},
    kubernetes::MIRROR,
    pull_secret::is_pull_secret,
    watch::{Change, Item},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

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
    /// No live Pod has named it for so long: since its last Pod went, else since this was first asked.
    Unused(Duration),
}

/// A Pod's metadata.
type Labelled = Item<PartialObjectMeta<Pod>>;

type Names = Box<[String]>;

#[derive(Default)]
struct Index {
    /// Each Pod's pull secrets.
    pods: HashMap<Arc<Key>, Names>,
    /// The Pods that name each pull secret.
    users: HashMap<Key, BTreeSet<Arc<Key>>>,
    /// Since when no Pod names it, of each pull secret that was asked about.
    unused: HashMap<Key, Instant>,
    /// Whether all Pods have been known once.
    filled: bool,
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
            Change::Gone(pod) => index.set(key_of(pod), Names::default()),
            Change::Listed(namespace, all) => index.listed(namespace.as_deref(), all),
            Change::Whole => {
                index.filled = true;
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
        let mut index = self.lock();
        if index.users.contains_key(pull_secret) {
            return Use::Used;
        }
        if !index.filled || index.fails(&pull_secret.0) {
            return Use::Unknown;
        }
        // The age of a pull secret that never had a Pod begins when it is first seen, not when this process began.
        let since = index
            .unused
            .entry(pull_secret.clone())
            .or_insert_with(Instant::now);
        Use::Unused(since.elapsed())
    }

    /// The pull secrets that a live Pod names.
    pub fn named_by(&self, pod: &Key) -> Vec<Key> {
        let index = self.lock();
        let names = index.pods.get(pod).into_iter().flatten();
        names.map(|name| (pod.0.clone(), name.clone())).collect()
    }

    /// At most so many live Pods that name this pull secret: those after this one, or else the first.
    pub fn users_of(&self, pull_secret: &Key, after: Option<&Key>, most: usize) -> Vec<Arc<Key>> {
        let index = self.lock();
        let Some(users) = index.users.get(pull_secret) else {
            return Vec::new();
        };
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = users.range::<Key, _>((begin, Bound::Unbounded));
        rest.chain(users).take(most.min(users.len())).cloned().collect()
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
        let all = self.failing.contains(&None);
        all || (!self.failing.is_empty() && self.failing.contains(&Some(namespace.to_owned())))
    }

    fn set(&mut self, pod: Key, names: Names) -> Vec<Key> {
        let pod = Arc::new(pod);
        let before = match names.is_empty() {
            true => self.pods.remove(&pod),
            false => self.pods.insert(pod.clone(), names.clone()),
        };
        let before = before.unwrap_or_default();
        if before == names {
            return Vec::new();
        }
        let key = |name: &String| (pod.0.clone(), name.clone());
        let mut changed = Vec::new();
        for key in names.iter().filter(|name| !before.contains(name)).map(key) {
            let users = self.users.entry(key.clone()).or_default();
            users.insert(pod.clone());
            if users.len() == 1 {
                self.unused.remove(&key);
                changed.push(key);
            }
        }
        for key in before.iter().filter(|name| !names.contains(name)).map(key) {
            if let Some(users) = self.users.get_mut(&key) {
                users.remove(&pod);
                if users.is_empty() {
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
        let here = |pod: &&Arc<Key>| namespace.is_none_or(|namespace| pod.0 == namespace);
        let gone: Vec<_> = self
            .pods
            .keys()
            .filter(here)
            .filter(|pod| !all.contains(&ObjectRef::new(&pod.1).within(&pod.0)))
            .map(|pod| (**pod).clone())
            .collect();
        gone.into_iter()
            .flat_map(|pod| self.set(pod, Names::default()))
            .collect()
    }
}

fn key_of(pod: &ObjectRef<Labelled>) -> Key {
    (pod.namespace.clone().unwrap_or_default(), pod.name.clone())
}

fn key(pod: &Labelled) -> Key {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

/// The pull secrets of ours that the Pod's annotation names, each once. Anybody who may write Pods writes the annotation:
/// at most so many items of it are looked at as the webhook writes. The mirror of a static Pod names none, for a kubelet may
/// create it in any namespace, and it cannot pull by a Secret.
fn names(pod: &Labelled) -> Names {
    let annotations = pod.annotations();
    if annotations.contains_key(MIRROR) {
        return Names::default();
    }
    let list = annotations
        .get(PULL_SECRETS_ANNOTATION)
        .map_or("", String::as_str);
    let mut names: Vec<_> = list
        .split(',')
        .take(MAX_REFERENCES)
        .map(str::trim)
        .filter(|name| is_pull_secret(name))
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_boxed_slice()
}

#[cfg(test)]
mod tests;
