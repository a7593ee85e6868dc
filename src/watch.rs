//! A watch that fills a store, with back-off, readiness and one log line a change of fortune.

use crate::telemetry::Readiness;
use futures::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher::{self, Event},
    },
};
use serde::de::DeserializeOwned;
use std::{fmt::Debug, hash::Hash};

/// A watch is asked anew after this, so that one whose connection died in silence is noticed.
const WATCH_SECONDS: u32 = 60;

/// Starts a watch for the life of the process.
///
/// `labels` selects what is watched; `trim` drops what nobody reads before an object is stored;
/// `observe` sees every event.
pub fn start<K>(
    what: &'static str,
    api: Api<K>,
    labels: Option<&str>,
    readiness: &Readiness,
    trim: impl Fn(&mut K) + Send + 'static,
    observe: impl Fn(&Event<K>) + Send + 'static,
) -> Store<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let config = watcher::Config {
        label_selector: labels.map(str::to_owned),
        ..watcher::Config::default()
    };
    let events = told(
        what,
        watcher::watcher(api, bounded(config))
            .default_backoff()
            .modify(trim),
    )
    .reflect(writer);
    readiness.wait_for(what);
    let readiness = readiness.clone();
    tokio::spawn(events.for_each(move |event| {
        if let Ok(event) = &event {
            observe(event);
            // Not by the store's own `wait_until_ready`: of several that wait for one store, only the last is woken.
            if matches!(event, Event::InitDone) {
                readiness.done(what);
            }
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
    told(what, watcher::watcher(api, bounded(config)).default_backoff())
}

fn bounded(config: watcher::Config) -> watcher::Config {
    config.timeout(WATCH_SECONDS)
}

/// One log line a change of fortune.
fn told<K>(
    what: &'static str,
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send {
    let mut failing = false;
    events.inspect(move |event| match event {
        Ok(Event::Init) => {}
        Ok(_) if failing => {
            tracing::info!("the {what} works again");
            failing = false;
        }
        Ok(_) => {}
        Err(error) if failing => tracing::debug!(%error, "the {what} still fails"),
        Err(error) => {
            tracing::warn!(%error, "the {what} fails; trying again with back-off");
            failing = true;
        }
    })
}
