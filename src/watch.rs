//! A watch that fills a store, with back-off, readiness and one log line a change of fortune.

use crate::telemetry::Readiness;
use futures::StreamExt;
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
        ..watcher::Config::default().timeout(WATCH_SECONDS)
    };
    let events = watcher::watcher(api, config)
        .default_backoff()
        .modify(trim)
        .reflect(writer);
    tokio::spawn(async move {
        let mut events = std::pin::pin!(events);
        let mut failing = false;
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    if failing && !matches!(event, Event::Init) {
                        tracing::info!("the {what} works again");
                        failing = false;
                    }
                    observe(&event);
                }
                Err(error) if failing => tracing::debug!(%error, "the {what} still fails"),
                Err(error) => {
                    tracing::warn!(%error, "the {what} fails; trying again with back-off");
                    failing = true;
                }
            }
        }
    });
    readiness.wait_for(what);
    let (filled, readiness) = (store.clone(), readiness.clone());
    tokio::spawn(async move {
        if filled.wait_until_ready().await.is_ok() {
            readiness.done(what);
        }
    });
    store
}
