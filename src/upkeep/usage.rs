//! Which pull secrets live Pods name, from a watch of the Pods' metadata.
//!
//! The metadata is a claim of anybody who may write Pods. On its own it only decides whether an existing
//! `ACRPullSecret` in the Pod's namespace is renewed or collected, which affects no other namespace. Before anything is
//! issued or repaired for a Pod, the Pod itself is read.

use crate::{
    admission::{MAX_REFERENCES, PULL_SECRETS_ANNOTATION},
    live_pod::MIRROR_POD_ANNOTATION,
    names::{NamespaceName, NamespacedName, ObjectName},
    pull_secret::parse_name,
    watch::{Change, Item},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// Whether a pull secret is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The Pods are not known: they have not been listed yet, or their watch fails.
    Unknown,
    /// Live Pods name it.
    Used,
    /// No live Pod has named it for this duration, since its last Pod disappeared or since this was first asked.
    Unused(Duration),
}

/// An index of the pull secrets that Pods name.
#[derive(Default)]
pub struct UsageIndex(Mutex<Index>);

impl UsageIndex {
    /// Applies a change. Returns the pull secrets whose use begins or ends.
    pub fn observe(&self, change: &Change<PodItem>) -> Vec<NamespacedName> {
        let mut index = self.0.lock();
        match change {
            Change::Applied(pod) => match NamespacedName::of(pod.meta()) {
                Some(key) => index.set(key, pull_secrets(pod)),
                None => Vec::new(),
            },
            Change::Deleted(pod) => match NamespacedName::of_reference(pod) {
                Some(key) => index.set(key, Names::default()),
                None => Vec::new(),
            },
            Change::Relisted(namespace, all) => index.retain(namespace.as_ref(), all),
            Change::Synced => {
                index.synced = true;
                Vec::new()
            }
            Change::Stale(namespace) => {
                index.stale.insert(namespace.clone());
                Vec::new()
            }
            Change::Recovered(namespace) => {
                index.stale.remove(namespace);
                Vec::new()
            }
        }
    }

    /// Whether this pull secret is in use.
    pub fn usage_of(&self, pull_secret: &NamespacedName) -> Usage {
        let mut index = self.0.lock();
        if index.pods_by_secret.contains_key(pull_secret) {
            return Usage::Used;
        }
        if !index.is_known(&pull_secret.namespace) {
            return Usage::Unknown;
        }
        // A pull secret that never had a Pod is unused since this was first asked, not since the process started.
        let since = index
            .unused_since
            .entry(pull_secret.clone())
            .or_insert_with(Instant::now);
        Usage::Unused(since.elapsed())
    }

    /// Whether live Pods name this pull secret, or the Pods are not known. Unlike `usage_of`, this does not begin to
    /// measure for how long a pull secret is unused.
    pub fn may_be_used(&self, pull_secret: &NamespacedName) -> bool {
        let index = self.0.lock();
        index.pods_by_secret.contains_key(pull_secret) || !index.is_known(&pull_secret.namespace)
    }

    /// The pull secrets that a live Pod names.
    pub fn named_by(&self, pod: &NamespacedName) -> Vec<NamespacedName> {
        let index = self.0.lock();
        let names = index.secrets_by_pod.get(pod).into_iter().flatten();
        names.map(|name| pod.sibling(name)).collect()
    }

    /// At most `limit` live Pods that name this pull secret, in cyclic order from the one after `after`.
    pub fn pods_naming(
        &self,
        pull_secret: &NamespacedName,
        after: Option<&NamespacedName>,
        limit: usize,
    ) -> Vec<Arc<NamespacedName>> {
        let index = self.0.lock();
        let Some(pods) = index.pods_by_secret.get(pull_secret) else {
            return Vec::new();
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = pods.range::<NamespacedName, _>((start, Bound::Unbounded));
        rest.chain(pods).take(limit.min(pods.len())).cloned().collect()
    }

    /// Forgets since when a pull secret that no longer exists is unused.
    pub fn forget(&self, pull_secret: &NamespacedName) {
        self.0.lock().unused_since.remove(pull_secret);
    }
}

/// The metadata of a Pod.
pub type PodItem = Item<PartialObjectMeta<Pod>>;

type Names = Box<[ObjectName]>;

#[derive(Default)]
struct Index {
    secrets_by_pod: HashMap<Arc<NamespacedName>, Names>,
    pods_by_secret: HashMap<NamespacedName, BTreeSet<Arc<NamespacedName>>>,
    /// Since when no Pod names a pull secret.
    unused_since: HashMap<NamespacedName, Instant>,
    /// Whether all Pods have been listed once.
    synced: bool,
    /// The namespaces in which the watch fails; `None` stands for the whole cluster.
    stale: HashSet<Option<NamespaceName>>,
}

impl Index {
    /// Whether the Pods of this namespace are known.
    fn is_known(&self, namespace: &NamespaceName) -> bool {
        self.synced && !self.is_stale(namespace)
    }

    fn is_stale(&self, namespace: &NamespaceName) -> bool {
        self.stale.contains(&None)
            || (!self.stale.is_empty() && self.stale.contains(&Some(namespace.clone())))
    }

    /// Replaces the pull secrets of a Pod. Returns the pull secrets whose use begins or ends.
    fn set(&mut self, mut pod: NamespacedName, mut names: Names) -> Vec<NamespacedName> {
        self.share_texts(&mut pod, &mut names);
        let pod = Arc::new(pod);
        let before = if names.is_empty() {
            self.secrets_by_pod.remove(&pod)
        } else {
            self.secrets_by_pod.insert(pod.clone(), names.clone())
        };
        let before = before.unwrap_or_default();
        if before == names {
            return Vec::new();
        }
        let key = |name: &ObjectName| pod.sibling(name);
        let mut changed = Vec::new();
        for key in names.iter().filter(|name| !before.contains(name)).map(key) {
            let pods = self.pods_by_secret.entry(key.clone()).or_default();
            pods.insert(pod.clone());
            if pods.len() == 1 {
                self.unused_since.remove(&key);
                changed.push(key);
            }
        }
        for key in before.iter().filter(|name| !names.contains(name)).map(key) {
            if let Some(pods) = self.pods_by_secret.get_mut(&key) {
                pods.remove(&pod);
                if pods.is_empty() {
                    self.pods_by_secret.remove(&key);
                    self.unused_since.insert(key.clone(), Instant::now());
                    changed.push(key);
                }
            }
        }
        changed
    }

    /// Lets a Pod share the texts of its namespace and of its pull secrets with the other Pods of these pull secrets. Most
    /// pull secrets have many Pods, and with texts of its own a Pod takes a quarter more memory.
    fn share_texts(&self, pod: &mut NamespacedName, names: &mut Names) {
        for name in names {
            if let Some((known, _)) = self.pods_by_secret.get_key_value(&pod.sibling(name)) {
                *name = known.name.clone();
                pod.namespace = known.namespace.clone();
            }
        }
    }

    /// Removes the Pods of the namespace that are not in the list: they were deleted while the watch was interrupted.
    fn retain(
        &mut self,
        namespace: Option<&NamespaceName>,
        listed: &HashSet<ObjectRef<PodItem>>,
    ) -> Vec<NamespacedName> {
        let deleted: Vec<_> = self
            .secrets_by_pod
            .keys()
            .filter(|pod| namespace.is_none_or(|namespace| pod.namespace == *namespace))
            .filter(|pod| !listed.contains(&pod.reference()))
            .map(|pod| (**pod).clone())
            .collect();
        deleted
            .into_iter()
            .flat_map(|pod| self.set(pod, Names::default()))
            .collect()
    }
}

/// The webhook's pull secrets that the Pod's annotation names, without duplicates. Anybody who may write Pods can write
/// the annotation, so only as many of its items are read as the webhook itself writes. The mirror Pod of a static Pod
/// names none: a kubelet may create it in any namespace, and it cannot pull with a Secret.
fn pull_secrets(pod: &PodItem) -> Names {
    let annotations = pod.annotations();
    if annotations.contains_key(MIRROR_POD_ANNOTATION) {
        return Names::default();
    }
    let list = annotations
        .get(PULL_SECRETS_ANNOTATION)
        .map_or("", String::as_str);
    let mut names: Vec<_> = list
        .split(',')
        .take(MAX_REFERENCES)
        .map(str::trim)
        .filter_map(parse_name)
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_boxed_slice()
}

#[cfg(test)]
mod tests;
