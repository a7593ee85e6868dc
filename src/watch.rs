//! Watches one kind in one or more namespaces, with back-off, logging once when a watch breaks and once when it
//! recovers; and stores that such a watch fills.

mod failure;
mod item;
mod list;
mod scope;

pub use item::{Item, Unreadable, Watched, decode};
pub use list::{get_object, list_page};

use crate::{
    cluster::{Cluster, WatchScopes},
    names::NamespaceName,
    telemetry::{Metrics, UnreadyReason, WatchHealth},
    untrusted::UntrustedText,
};
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use kube::{
    Resource,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};
use scope::ScopeWatch;
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    sync::Arc,
};

/// What a watch reports. A namespace of `None` stands for the whole cluster.
pub enum Change<K: Resource> {
    /// An object was created or changed, or is part of a list.
    Applied(K),
    /// An object was deleted.
    Deleted(ObjectRef<K>),
    /// The complete list of a namespace. Every other object of the namespace has been deleted.
    Relisted(Option<NamespaceName>, HashSet<ObjectRef<K>>),
    /// Every scope has been listed once, or counts as empty because the API server refuses to list it.
    Synced,
    /// The objects known in this namespace may be outdated: its watch fails.
    Stale(Option<NamespaceName>),
    /// The objects known in this namespace are up to date again.
    Recovered(Option<NamespaceName>),
}

/// Which objects are watched.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Option<String>,
    fields: Option<String>,
}

impl Selector {
    /// Restricts the watch to objects that match this label selector.
    pub fn labels(mut self, labels: &str) -> Self {
        self.labels = Some(labels.to_owned());
        self
    }

    /// Restricts the watch to objects that match this field selector.
    pub fn fields(mut self, fields: &str) -> Self {
        self.fields = Some(fields.to_owned());
        self
    }
}

/// A watch of one kind, which makes progress only while it is polled.
pub struct Watch<K: Resource> {
    changes: SelectAll<BoxStream<'static, (usize, Change<K>)>>,
    /// The scopes that have not been listed yet.
    unlisted: BTreeSet<usize>,
    next: Option<Change<K>>,
    health: WatchHealth,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Starts to watch these scopes. `name` describes the watch in logs and metrics.
    pub fn start(name: &'static str, cluster: &Cluster, scopes: WatchScopes<K>, selector: Selector) -> Self {
        let unlisted = (0..scopes.len()).collect();
        let health = cluster.readiness.register_watch(name, &cluster.metrics);
        let changes = |(index, (namespace, api))| {
            let health = health.register_scope();
            ScopeWatch::new(name, namespace, api, cluster, health, selector.clone()).changes(index)
        };
        Self {
            changes: stream::select_all(scopes.into_iter().enumerate().map(changes)),
            unlisted,
            next: None,
            health,
        }
    }

    /// The next change. The stream of changes never ends.
    pub async fn next(&mut self) -> Option<Change<K>> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        let (index, change) = self.changes.next().await?;
        if matches!(change, Change::Relisted(..)) && self.unlisted.remove(&index) && self.unlisted.is_empty()
        {
            self.next = Some(Change::Synced);
        }
        Some(change)
    }
}

/// A change of the content of a store.
pub enum StoreEvent<'a, K: Resource> {
    /// An object was added or replaced.
    Applied(&'a K),
    /// An object was removed, because the watch reported its deletion or because it was missing from a new list.
    Deleted(ObjectRef<K>),
}

/// Starts a watch that fills a store for the life of the process.
///
/// `trim` drops unused fields before an object is stored. `observe` is called for every event after the store was
/// changed.
pub fn store<K: Watched>(
    name: &'static str,
    cluster: &Cluster,
    scopes: WatchScopes<Item<K>>,
    selector: Selector,
    trim: impl Fn(&mut K) + Send + 'static,
    observe: impl Fn(StoreEvent<'_, Item<K>>) + Send + 'static,
) -> WatchedStore<K> {
    let (store, mut writer) = reflector::store();
    // kube's runtime waits until a store holds its whole first list. This store is filled object by object, and
    // `readiness` reports when it is complete.
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let unlisted = Arc::new(cluster.readiness.unready(name));
    let mut watch = Watch::start(name, cluster, scopes, selector);
    let watched = WatchedStore {
        store: store.clone(),
        health: watch.health.clone(),
        unlisted: unlisted.clone(),
    };
    let mut unreadable = UnreadableObjects::new(name, cluster.metrics.clone());
    cluster.tasks.spawn(name, async move {
        while let Some(change) = watch.next().await {
            match change {
                Change::Applied(mut item) => {
                    unreadable.update(&item);
                    if let Ok(object) = &mut item.0 {
                        trim(object);
                    }
                    let event = Event::Apply(item);
                    writer.apply_watcher_event(&event);
                    if let Event::Apply(item) = &event {
                        observe(StoreEvent::Applied(item));
                    }
                }
                Change::Deleted(reference) => {
                    unreadable.remove(&reference);
                    remove(&mut writer, &store, reference, &observe);
                }
                Change::Relisted(namespace, all) => {
                    for known in store.state().iter().map(|object| ObjectRef::from_obj(&**object)) {
                        if namespace
                            .as_deref()
                            .is_none_or(|namespace| known.namespace.as_deref() == Some(namespace))
                            && !all.contains(&known)
                        {
                            unreadable.remove(&known);
                            remove(&mut writer, &store, known, &observe);
                        }
                    }
                }
                // The store's own `wait_until_ready` wakes only the last of several waiting tasks.
                Change::Synced => unlisted.clear(),
                Change::Stale(_) | Change::Recovered(_) => {}
            }
        }
    });
    watched
}

/// A store that a watch fills.
#[derive(Clone)]
pub struct WatchedStore<K: Watched> {
    store: Store<Item<K>>,
    health: WatchHealth,
    /// Set until the store holds every object that existed when the watch was started.
    unlisted: Arc<UnreadyReason>,
}

impl<K: Watched> WatchedStore<K> {
    /// The object, if the watch shows it.
    pub fn get(&self, object: &ObjectRef<Item<K>>) -> Option<Arc<Item<K>>> {
        self.store.get(object)
    }

    /// All objects.
    pub fn all(&self) -> Vec<Arc<Item<K>>> {
        self.store.state()
    }

    /// Whether the store holds the objects as they were a moment ago.
    pub fn is_current(&self) -> bool {
        !self.unlisted.is_set() && self.health.is_current()
    }
}

fn remove<K>(
    writer: &mut Writer<K>,
    view: &Store<K>,
    reference: ObjectRef<K>,
    observe: &impl Fn(StoreEvent<'_, K>),
) where
    K: Resource<DynamicType = ()> + Clone,
{
    if let Some(object) = view.get(&reference) {
        writer.apply_watcher_event(&Event::Delete((*object).clone()));
    }
    observe(StoreEvent::Deleted(reference));
}

/// The objects of a watch that could not be decoded.
struct UnreadableObjects<K: Resource<DynamicType = ()>> {
    watch: &'static str,
    metrics: Metrics,
    objects: HashSet<ObjectRef<Item<K>>>,
}

impl<K: Watched> UnreadableObjects<K> {
    fn new(watch: &'static str, metrics: Metrics) -> Self {
        let unreadable = Self {
            watch,
            metrics,
            objects: HashSet::new(),
        };
        unreadable.update_metric();
        unreadable
    }

    fn update(&mut self, item: &Item<K>) {
        let reference = ObjectRef::from_obj(item);
        let Err(Unreadable { error, .. }) = &item.0 else {
            return self.remove(&reference);
        };
        let is_first = self.objects.is_empty();
        let namespace = reference.namespace.clone();
        let name = reference.name.clone();
        if !self.objects.insert(reference) {
            return;
        }
        self.update_metric();
        let watch = self.watch;
        let error = UntrustedText::new(error).to_string();
        // One warning while any object is unreadable: users can create many of them, and the metric counts them.
        if is_first {
            tracing::warn!(
                namespace,
                name,
                error,
                "an object of the {watch} cannot be decoded and is skipped"
            );
        } else {
            tracing::debug!(
                namespace,
                name,
                error,
                "an object of the {watch} cannot be decoded and is skipped"
            );
        }
    }

    fn remove(&mut self, reference: &ObjectRef<Item<K>>) {
        if !self.objects.is_empty() && self.objects.remove(reference) {
            self.update_metric();
        }
    }

    fn update_metric(&self) {
        self.metrics
            .set_unreadable_objects(self.watch, self.objects.len());
    }
}
