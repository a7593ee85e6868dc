//! Kubernetes Events about our objects.
//!
//! kube's recorder counts repetitions up by one call each; a refusal that every Pod of a burst meets is
//! told once in a while instead.

use crate::{
    kubernetes,
    telemetry::FIELD_MANAGER,
    untrusted::{self, UntrustedText},
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
    /// This replica's Pod, where the program runs in one.
    own_pod: Option<ObjectReference>,
    told: Mutex<HashMap<(String, String), Instant>>,
}

// === impl Events ===

impl Events {
    /// Events in this client's cluster, reported by this replica.
    pub fn new(client: Client) -> Self {
        let pod = std::env::var("POD_NAME").ok();
        let own_pod = |name: String| {
            Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(kubernetes::namespace_of_this_pod()?),
                name: Some(name),
                ..ObjectReference::default()
            })
        };
        let own_pod = pod.clone().and_then(own_pod);
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: pod,
        };
        Self(Arc::new(Inner {
            recorder: Recorder::new(client, reporter),
            own_pod,
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

    /// Reports that something is wrong with this replica, where it runs in a Pod. `subject` tells one trouble from another.
    pub fn warn_of_this_replica(&self, subject: &'static str, reason: &'static str, note: &str) {
        if let Some(pod) = &self.0.own_pod
            && self.0.is_news(subject, reason)
        {
            self.publish(pod.clone(), EventType::Warning, reason, note);
        }
    }

    /// In the background: nobody waits for an Event, and its loss is no failure.
    fn tell(&self, about: ObjectReference, type_: EventType, reason: &'static str, note: &str) {
        if self.0.is_news(about.uid.as_deref().unwrap_or_default(), reason) {
            self.publish(about, type_, reason, note);
        }
    }

    fn publish(&self, about: ObjectReference, type_: EventType, reason: &'static str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(untrusted::sanitize(note.to_owned(), MAX_NOTE)),
            action: "Issue".to_owned(),
            secondary: None,
        };
        let inner = self.0.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.recorder.publish(&event, &about).await {
                tracing::debug!(
                    reason,
                    error = %UntrustedText::new(&error.to_string()),
                    "an Event was not written"
                );
            }
        });
    }
}

impl Inner {
    fn is_news(&self, about: &str, reason: &str) -> bool {
        let key = (about.to_owned(), reason.to_owned());
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
