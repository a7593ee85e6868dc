//! A watch that fills a store, with back-off, readiness and one log line a change of fortune.

use crate::telemetry::Readiness;
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, time::Duration};
use tokio::time::{Instant, sleep_until};

/// The API server ends a watch after this, and another one begins. kube takes one that lasts longer for lost.
const WATCH_SECONDS: u32 = 15;
const MIN_WAIT: Duration = Duration::from_millis(500);
/// Short: until the watch works again, Pods are admitted by what was known before.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The first failure after so long is met as if it were the first of all.
const FORGIVEN: Duration = Duration::from_secs(60);

/// A watch that starts over with a list whenever it has failed. kube's own goes on where it was, and is silent until
/// something changes: nobody could tell when it works again.
struct Following<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    api: Api<K>,
    config: watcher::Config,
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    waits: ExponentialBackoff,
    failed: Option<Instant>,
    again: Option<Instant>,
}

/// What a watch has shown, once its store shows it too.
pub enum Seen<'a, K: Resource> {
    /// An object that is there, new or old.
    There(&'a K),
    /// One that is there no more, whether its end was seen or only noticed at the next list.
    Gone(ObjectRef<K>),
}

/// Starts a watch for the life of the process.
///
/// `labels` selects what is watched; `trim` drops what nobody reads before an object is stored;
/// `observe` sees everything.
pub fn start<K>(
    what: &'static str,
    api: Api<K>,
    labels: Option<&str>,
    readiness: &Readiness,
    trim: impl Fn(&mut K) + Send + 'static,
    observe: impl Fn(Seen<'_, K>) + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let config = watcher::Config {
        label_selector: labels.map(str::to_owned),
        ..watcher::Config::default()
    };
    let events = told(what, Following::start(api, config).modify(trim)).reflect(writer);
    readiness.wait_for(what);
    let readiness = readiness.clone();
    let (view, mut before) = (store.clone(), Vec::new());
    tokio::spawn(events.for_each(move |event| {
        match &event {
            // A list shows what is there, not what went before it. The store is as it was until the list is whole.
            Ok(Event::Init) => before = view.state().iter().map(|o| ObjectRef::from_obj(&**o)).collect(),
            Ok(Event::InitApply(object) | Event::Apply(object)) => observe(Seen::There(object)),
            Ok(Event::Delete(object)) => observe(Seen::Gone(ObjectRef::from_obj(object))),
            Ok(Event::InitDone) => {
                let gone = std::mem::take(&mut before).into_iter();
                gone.filter(|object| view.get(object).is_none())
                    .for_each(|object| observe(Seen::Gone(object)));
                // Not by the store's own `wait_until_ready`: of several that wait for one store, only the last is woken.
                readiness.done(what);
            }
            Err(_) => readiness.doubt(what),
        }
        std::future::ready(())
    }));
    store
}

/// A watch whose events the caller takes in by itself, and which lasts as long as it is polled.
pub fn events<K>(
    what: &'static str,
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    told(what, Following::start(api, config))
}

// === impl Following ===

impl<K> Following<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn start(
        api: Api<K>,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send {
        let config = config.timeout(WATCH_SECONDS);
        let following = Self {
            events: watcher::watcher(api.clone(), config.clone()).boxed(),
            waits: waits(),
            failed: None,
            again: None,
            api,
            config,
        };
        stream::unfold(following, async |mut following| {
            let event = following.next().await?;
            Some((event, following))
        })
    }

    async fn next(&mut self) -> Option<Result<Event<K>, watcher::Error>> {
        if let Some(again) = self.again.take() {
            sleep_until(again).await;
            self.events = watcher::watcher(self.api.clone(), self.config.clone()).boxed();
        }
        let event = self.events.next().await?;
        if event.is_err() {
            let now = Instant::now();
            if self.failed.is_none_or(|before| now - before > FORGIVEN) {
                self.waits = waits();
            }
            self.failed = Some(now);
            self.again = Some(now + self.waits.next().unwrap_or(MAX_WAIT));
        }
        Some(event)
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

/// One log line a change of fortune.
fn told<K>(
    what: &'static str,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send {
    let mut failing = false;
    events.inspect(move |event| match event {
        Ok(Event::InitDone) if failing => {
            tracing::info!("the {what} works again");
            failing = false;
        }
        Ok(_) => {}
        // So do all, now and then: the API server remembers only so much.
        Err(watcher::Error::WatchError(status)) if status.code == 410 => {
            tracing::debug!("the {what} has expired and begins anew");
        }
        Err(error) if failing => tracing::debug!(%error, "the {what} still fails"),
        Err(error) => {
            tracing::warn!(%error, "the {what} fails; trying again with back-off");
            failing = true;
        }
    })
}
