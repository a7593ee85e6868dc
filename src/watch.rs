//! What the API server says of the objects of a kind, in one place or in several, with back-off and one log line for each
//! change between failing and working; and stores that are filled by it.

mod item;
mod list;
mod member;

pub use item::{Item, MAX_VALUE, Unreadable, Watched, read};
pub use list::{Failure, object, page};

use crate::{
    cluster::{Cluster, Places},
    telemetry::Metrics,
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
use member::Member;
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
};

/// What a watch reports.
pub enum Change<K: Resource> {
    /// An object is there, new or old.
    There(K),
    /// It is there no more.
    Gone(ObjectRef<K>),
    /// These are all of this namespace, or of all namespaces. Whatever else was there is gone.
    Listed(Option<String>, HashSet<ObjectRef<K>>),
    /// Each place has been listed once, or taken for empty because the API server refuses its list.
    Whole,
    /// What is known of this namespace, or of all namespaces, may be outdated.
    Fails(Option<String>),
    /// What is known of this namespace, or of all namespaces, is up to date again.
    Works(Option<String>),
}

/// Which objects are watched.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Option<String>,
    fields: Option<String>,
}

/// A watch that lasts as long as it is polled.
pub struct Watch<K: Resource> {
    members: SelectAll<BoxStream<'static, (usize, Change<K>)>>,
    /// The places that have not been listed yet.
    missing: BTreeSet<usize>,
    next: Option<Change<K>>,
}

/// What a store is seen to hold.
pub enum Seen<'a, K: Resource> {
    /// An object that is there, new or old.
    There(&'a K),
    /// One that is there no more, whether its end was seen or only noticed at the next list.
    Gone(ObjectRef<K>),
}

/// Fills a store for the life of the process.
///
/// `trim` drops what nobody reads before an object is stored; `observe` sees everything, once the store holds it.
pub fn store<K: Watched>(
    what: &'static str,
    cluster: &Cluster,
    places: Places<Item<K>>,
    selector: Selector,
    trim: impl Fn(&mut K) + Send + 'static,
    observe: impl Fn(Seen<'_, Item<K>>) + Send + 'static,
) -> Store<Item<K>> {
    let (store, mut writer) = reflector::store();
    // kube's runtime waits for a store's first list as a whole. This one is filled object by object, and says by `readiness`
    // when it is full.
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    cluster.readiness.wait_for(what);
    let (readiness, view) = (cluster.readiness.clone(), store.clone());
    let mut watch = Watch::start(what, cluster, places, selector);
    let mut unreadable = Broken::new(what, cluster.metrics.clone());
    cluster.tasks.spawn(what, async move {
        while let Some(change) = watch.next().await {
            match change {
                Change::There(mut item) => {
                    unreadable.take_in(&item);
                    if let Ok(object) = &mut item.0 {
                        trim(object);
                    }
                    let event = Event::Apply(item);
                    writer.apply_watcher_event(&event);
                    if let Event::Apply(item) = &event {
                        observe(Seen::There(item));
                    }
                }
                Change::Gone(gone) => {
                    unreadable.forget(&gone);
                    remove(&mut writer, &view, gone, &observe);
                }
                Change::Listed(namespace, all) => {
                    for gone in view.state().iter().map(|object| ObjectRef::from_obj(&**object)) {
                        if (namespace.is_none() || namespace == gone.namespace) && !all.contains(&gone) {
                            unreadable.forget(&gone);
                            remove(&mut writer, &view, gone, &observe);
                        }
                    }
                }
                // Not by the store's own `wait_until_ready`: of several that wait for one store, only the last is woken.
                Change::Whole => readiness.done(what),
                Change::Fails(_) | Change::Works(_) => {}
            }
        }
    });
    store
}

fn remove<K>(writer: &mut Writer<K>, view: &Store<K>, gone: ObjectRef<K>, observe: &impl Fn(Seen<'_, K>))
where
    K: Resource<DynamicType = ()> + Clone,
{
    if let Some(object) = view.get(&gone) {
        writer.apply_watcher_event(&Event::Delete((*object).clone()));
    }
    observe(Seen::Gone(gone));
}

/// The objects of a watch that could not be decoded.
struct Broken<K: Resource<DynamicType = ()>> {
    what: &'static str,
    metrics: Metrics,
    objects: HashSet<ObjectRef<Item<K>>>,
}

// === impl Broken ===

impl<K: Watched> Broken<K> {
    fn new(what: &'static str, metrics: Metrics) -> Self {
        let broken = Self {
            what,
            metrics,
            objects: HashSet::new(),
        };
        broken.count();
        broken
    }

    fn take_in(&mut self, item: &Item<K>) {
        let reference = ObjectRef::from_obj(item);
        let Err(Unreadable { error, .. }) = &item.0 else {
            return self.forget(&reference);
        };
        let first = self.objects.is_empty();
        let (namespace, name) = (reference.namespace.clone(), reference.name.clone());
        if !self.objects.insert(reference) {
            return;
        }
        self.count();
        let (what, error) = (self.what, UntrustedText::new(error).to_string());
        // Once while there is one: users make as many of them as they like, and the metric has their number.
        match first {
            true => tracing::warn!(
                namespace,
                name,
                error,
                "an object of the {what} cannot be read, and is skipped"
            ),
            false => tracing::debug!(
                namespace,
                name,
                error,
                "an object of the {what} cannot be read, and is skipped"
            ),
        }
    }

    fn forget(&mut self, reference: &ObjectRef<Item<K>>) {
        if !self.objects.is_empty() && self.objects.remove(reference) {
            self.count();
        }
    }

    fn count(&self) {
        self.metrics.unreadable_objects(self.what, self.objects.len());
    }
}

// === impl Selector ===

impl Selector {
    /// Objects with these labels, as the API server's `labelSelector` has them.
    pub fn labels(mut self, labels: &str) -> Self {
        self.labels = Some(labels.to_owned());
        self
    }

    /// Objects with these fields, as the API server's `fieldSelector` has them.
    pub fn fields(mut self, fields: &str) -> Self {
        self.fields = Some(fields.to_owned());
        self
    }
}

// === impl Watch ===

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches these places.
    pub fn start(what: &'static str, cluster: &Cluster, places: Places<K>, selector: Selector) -> Self {
        let missing = (0..places.len()).collect();
        let member =
            |(n, (namespace, api))| Member::new(what, namespace, api, cluster, selector.clone()).changes(n);
        Self {
            members: stream::select_all(places.into_iter().enumerate().map(member)),
            missing,
            next: None,
        }
    }

    /// The next change; there always is one.
    pub async fn next(&mut self) -> Option<Change<K>> {
        if let Some(next) = self.next.take() {
            return Some(next);
        }
        let (n, change) = self.members.next().await?;
        if matches!(change, Change::Listed(..)) && self.missing.remove(&n) && self.missing.is_empty() {
            self.next = Some(Change::Whole);
        }
        Some(change)
    }
}
