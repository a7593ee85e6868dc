//! The `ACRPullSecret`s of the cluster, watched.

use super::{
    ACRPullSecret, PullSecretPlan,
    census::{Census, Reservation},
    changes::{Changes, Listener},
};
use crate::{
    cluster::Cluster,
    names::NamespacedName,
    problem::Problem,
    watch::{self, Item, Selector, StoreEvent, WatchedStore},
};
use kube::Resource;
use std::sync::Arc;

/// An `ACRPullSecret` as it is watched: one that cannot be decoded does not hide the others.
pub type WatchedPullSecret = Item<ACRPullSecret>;

/// The `ACRPullSecret`s that the watch shows. Clones share them.
#[derive(Clone)]
pub struct PullSecrets {
    store: WatchedStore<ACRPullSecret>,
    changes: Changes,
    census: Census,
}

impl PullSecrets {
    /// Starts the watch. `on_deleted` is called for each object that is deleted.
    pub fn watch(cluster: &Cluster, on_deleted: impl Fn(&NamespacedName) + Send + Sync + 'static) -> Self {
        let (changes, census) = (Changes::default(), Census::default());
        let (changed, counted) = (changes.clone(), census.clone());
        let on_change = move |seen: StoreEvent<'_, WatchedPullSecret>| {
            let key = match &seen {
                StoreEvent::Applied(object) => NamespacedName::of(object.meta()),
                StoreEvent::Deleted(reference) => NamespacedName::of_reference(reference),
            };
            let Some(key) = key else { return };
            match seen {
                StoreEvent::Applied(_) => counted.add(&key),
                StoreEvent::Deleted(_) => {
                    on_deleted(&key);
                    counted.remove(&key);
                }
            }
            changed.add(key);
        };
        let scopes = cluster.watch_scopes::<WatchedPullSecret>();
        Self {
            store: watch::store(
                "watch of ACRPullSecrets",
                cluster,
                scopes,
                Selector::default(),
                trim,
                on_change,
            ),
            changes,
            census,
        }
    }

    /// The object, if the watch shows it.
    pub fn get(&self, key: &NamespacedName) -> Option<Arc<WatchedPullSecret>> {
        self.store.get(&key.reference())
    }

    /// The object of a plan, if the watch shows it.
    pub fn planned(&self, plan: &PullSecretPlan) -> Option<Arc<WatchedPullSecret>> {
        self.store.get(plan.object_ref())
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<WatchedPullSecret>> {
        self.store.all()
    }

    /// Listens to changes from now on, in place of an earlier listener.
    pub fn listen(&self) -> Listener {
        self.changes.listen()
    }

    /// Whether the watch shows the objects as they were a moment ago.
    pub fn is_current(&self) -> bool {
        self.store.is_current()
    }

    /// Counts a pull secret that is about to be made, if its namespace has room for it.
    pub fn reserve(&self, key: &NamespacedName, max: u32) -> Result<Reservation, Problem> {
        self.census.reserve(key, max)
    }
}

/// Drops unused metadata, to save memory.
fn trim(object: &mut ACRPullSecret) {
    let metadata = object.meta_mut();
    metadata.labels = None;
    metadata.annotations = None;
}
