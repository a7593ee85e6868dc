//! Kubernetes Events about our objects.
//!
//! kube's recorder counts repetitions up by one call each; a refusal that every Pod of a burst meets is
//! told once in a while instead.

use crate::{
    foreign::{self, Foreign},
    telemetry::FIELD_MANAGER,
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The same about the same object is not told again before this.
const QUIET: Duration = Duration::from_secs(300);
/// The API takes at most 1 KiB, the mark of a cut included.
const MAX_NOTE: usize = 1000;
/// Beyond this, what is remembered is looked through for what is old.
const MANY: usize = 4096;

/// Tells Events; clones share what was told.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    recorder: Recorder,
    told: Mutex<HashMap<(String, String), Instant>>,
}

// === impl Events ===

impl Events {
    /// Events in this client's cluster, reported by this replica.
    pub fn new(client: Client) -> Self {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: std::env::var("POD_NAME").ok(),
        };
        Self(Arc::new(Inner {
            recorder: Recorder::new(client, reporter),
            told: Mutex::default(),
        }))
    }

    /// Tells that something is wrong with this object.
    pub fn warn(&self, about: ObjectReference, reason: &'static str, note: &str) {
        self.tell(about, EventType::Warning, reason, note);
    }

    /// Tells of this object what somebody may want to know.
    pub fn note(&self, about: ObjectReference, reason: &'static str, note: &str) {
        self.tell(about, EventType::Normal, reason, note);
    }

    /// In the background: nobody waits for an Event, and its loss is no failure.
    fn tell(&self, about: ObjectReference, type_: EventType, reason: &'static str, note: &str) {
        if !self.0.is_news(&about, reason) {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(foreign::message(note.to_owned(), MAX_NOTE)),
            action: "Issue".to_owned(),
            secondary: None,
        };
        let inner = self.0.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.recorder.publish(&event, &about).await {
                tracing::debug!(
                    reason,
                    error = %Foreign::new(&error.to_string()),
                    "an Event was not written"
                );
            }
        });
    }
}

impl Inner {
    fn is_news(&self, about: &ObjectReference, reason: &str) -> bool {
        let key = (about.uid.clone().unwrap_or_default(), reason.to_owned());
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&key).is_some_and(|before| now - *before < QUIET) {
            return false;
        }
        if told.len() >= MANY {
            told.retain(|_, before| now - *before < QUIET);
        }
        told.insert(key, now);
        true
    }
}
