//! What the API server tells of the objects of a kind, in one place or in several, with back-off and one log line a change
//! of fortune; and stores that are filled by it.

use crate::{cluster::Places, telemetry::Readiness};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use kube::{
    Api, Resource,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use std::{
    collections::{BTreeSet, HashSet},
    fmt::Debug,
    mem,
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// The API server ends a watch after this, and another one begins. kube takes one that lasts longer for lost.
const WATCH_SECONDS: u32 = 15;
const MIN_WAIT: Duration = Duration::from_millis(500);
/// Short: until the watch works again, Pods are admitted by what was known before.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The first failure after so long is met as if it were the first of all.
const FORGIVEN: Duration = Duration::from_secs(60);

/// What a watch tells.
pub enum Change<K: Resource> {
    /// An object is there, new or old.
    There(K),
    /// It is there no more.
    Gone(ObjectRef<K>),
    /// These are all of this namespace, or of all namespaces. Whatever else was there is gone.
    Listed(Option<String>, HashSet<ObjectRef<K>>),
    /// Everything is known: for the first time, or again after a failure.
    Whole,
    /// What is known may be outdated.
    Failing,
}

/// A watch that lasts as long as it is asked.
pub struct Watch<K: Resource> {
    members: SelectAll<BoxStream<'static, (usize, Change<K>)>>,
    /// Those that have not listed yet, or not since they failed.
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

/// The watch of one place. It starts over with a list whenever it has failed: kube's own goes on where it was, and is silent
/// until something changes, so that nobody could tell when it works again.
struct Member<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    what: &'static str,
    namespace: Option<String>,
    api: Api<K>,
    config: watcher::Config,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    listed: HashSet<ObjectRef<K>>,
    waits: ExponentialBackoff,
    failed: Option<Instant>,
    again: Option<Instant>,
    failing: bool,
}

/// Fills a store for the life of the process.
///
/// `labels` selects what is watched; `trim` drops what nobody reads before an object is stored;
/// `observe` sees everything, once the store holds it.
pub fn store<K>(
    what: &'static str,
    places: Places<K>,
    labels: Option<&str>,
    readiness: &Readiness,
    trim: impl Fn(&mut K) + Send + 'static,
    observe: impl Fn(Seen<'_, K>) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, mut writer) = reflector::store();
    // kube's runtime waits for a store's first list as a whole. This one is filled object by object, and says by `readiness`
    // when it is full.
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let config = watcher::Config {
        label_selector: labels.map(str::to_owned),
        ..watcher::Config::default()
    };
    readiness.wait_for(what);
    let (readiness, view) = (readiness.clone(), store.clone());
    tokio::spawn(async move {
        let mut watch = Watch::start(what, places, &config);
        while let Some(change) = watch.next().await {
            match change {
                Change::There(mut object) => {
                    trim(&mut object);
                    let event = Event::Apply(object);
                    writer.apply_watcher_event(&event);
                    if let Event::Apply(object) = &event {
                        observe(Seen::There(object));
                    }
                }
                Change::Gone(gone) => remove(&mut writer, &view, gone, &observe),
                Change::Listed(namespace, all) => {
                    for gone in view.state().iter().map(|object| ObjectRef::from_obj(&**object)) {
                        if (namespace.is_none() || namespace == gone.namespace) && !all.contains(&gone) {
                            remove(&mut writer, &view, gone, &observe);
                        }
                    }
                }
                // Not by the store's own `wait_until_ready`: of several that wait for one store, only the last is woken.
                Change::Whole => readiness.done(what),
                Change::Failing => readiness.doubt(what),
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

// === impl Watch ===

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// Watches these places.
    pub fn start(what: &'static str, places: Places<K>, config: &watcher::Config) -> Self {
        let config = config.clone().timeout(WATCH_SECONDS);
        let missing = (0..places.len()).collect();
        let member = |(n, (namespace, api))| Member::start(what, namespace, api, config.clone()).changes(n);
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
        match change {
            Change::Failing => drop(self.missing.insert(n)),
            Change::Listed(..) if self.missing.remove(&n) && self.missing.is_empty() => {
                self.next = Some(Change::Whole);
            }
            _ => {}
        }
        Some(change)
    }
}

// === impl Member ===

impl<K> Member<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn start(what: &'static str, namespace: Option<String>, api: Api<K>, config: watcher::Config) -> Self {
        Self {
            what,
            namespace,
            events: watcher::watcher(api.clone(), config.clone()).boxed(),
            api,
            config,
            listed: HashSet::new(),
            waits: waits(),
            failed: None,
            again: None,
            failing: false,
        }
    }

    fn changes(self, n: usize) -> BoxStream<'static, (usize, Change<K>)> {
        let changes = stream::unfold(self, move |mut member| async move {
            let change = member.next().await?;
            Some(((n, change), member))
        });
        changes.boxed()
    }

    async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(again) = self.again.take() {
                sleep_until(again).await;
                self.events = watcher::watcher(self.api.clone(), self.config.clone()).boxed();
            }
            return Some(match self.events.next().await? {
                Ok(Event::Init) => {
                    self.listed.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    self.listed.insert(ObjectRef::from_obj(&object));
                    Change::There(object)
                }
                Ok(Event::InitDone) => {
                    self.works();
                    Change::Listed(self.namespace.clone(), mem::take(&mut self.listed))
                }
                Ok(Event::Apply(object)) => Change::There(object),
                Ok(Event::Delete(object)) => Change::Gone(ObjectRef::from_obj(&object)),
                Err(error) => {
                    self.fails(&error);
                    Change::Failing
                }
            });
        }
    }

    fn fails(&mut self, error: &watcher::Error) {
        let now = Instant::now();
        if self.failed.is_none_or(|before| now - before > FORGIVEN) {
            self.waits = waits();
        }
        self.failed = Some(now);
        self.again = Some(now + self.waits.next().unwrap_or(MAX_WAIT));
        let (what, namespace) = (self.what, &self.namespace);
        match error {
            // So do all, now and then: the API server remembers only so much.
            watcher::Error::WatchError(status) if status.code == 410 => {
                tracing::debug!(namespace, "the {what} has expired and begins anew");
            }
            error if self.failing => tracing::debug!(namespace, %error, "the {what} still fails"),
            error => {
                tracing::warn!(namespace, %error, "the {what} fails; trying again with back-off");
                self.failing = true;
            }
        }
    }

    fn works(&mut self) {
        if mem::take(&mut self.failing) {
            tracing::info!(namespace = self.namespace, "the {} works again", self.what);
        }
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_WAIT)
        .with_max_delay(MAX_WAIT)
        .with_jitter()
        .without_max_times()
        .build()
}
