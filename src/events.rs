//! Kubernetes Events about pull secrets, generators and this replica's Pod.
//!
//! kube's recorder makes one call for each repetition of an Event, to increase its count. A refusal that every Pod of a
//! burst causes is emitted once per `DEDUP_WINDOW` instead.

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
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// An Event with the same object and reason is not emitted again within this time.
const DEDUP_WINDOW: Duration = Duration::from_secs(300);
/// The API limits notes to 1 KiB, which includes the mark of a truncation.
const MAX_NOTE: usize = 1000;
/// Above this number of remembered Events, those older than `DEDUP_WINDOW` are removed.
const PRUNE_ABOVE: usize = 4096;

/// Emits Events. Clones share the record of what was emitted.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    recorder: Recorder,
    /// This replica's Pod, if the program runs in a Pod.
    own_pod: Option<ObjectReference>,
    /// When an Event was last emitted, by object and reason.
    last_emitted: Mutex<HashMap<(String, String), Instant>>,
}

impl Events {
    /// Emits Events in the cluster of this client, with this replica as their source.
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
            last_emitted: Mutex::default(),
        }))
    }

    /// Emits a Warning about this object.
    pub fn warn(&self, about: ObjectReference, reason: &'static str, note: &str) {
        self.emit(about, EventType::Warning, reason, note);
    }

    /// Emits a Normal Event about this object.
    pub fn note(&self, about: ObjectReference, reason: &'static str, note: &str) {
        self.emit(about, EventType::Normal, reason, note);
    }

    /// Emits a Warning about this replica's Pod, if the program runs in a Pod. Warnings with different `subject`s do
    /// not suppress each other.
    pub fn warn_about_own_pod(&self, subject: &'static str, reason: &'static str, note: &str) {
        if let Some(pod) = &self.0.own_pod
            && self.0.should_emit(subject, reason)
        {
            self.publish(pod.clone(), EventType::Warning, reason, note);
        }
    }

    fn emit(&self, about: ObjectReference, type_: EventType, reason: &'static str, note: &str) {
        if self
            .0
            .should_emit(about.uid.as_deref().unwrap_or_default(), reason)
        {
            self.publish(about, type_, reason, note);
        }
    }

    /// Publishes in the background: nobody waits for an Event, and losing one is not a failure.
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
                    "an Event could not be written"
                );
            }
        });
    }
}

impl Inner {
    fn should_emit(&self, about: &str, reason: &str) -> bool {
        let key = (about.to_owned(), reason.to_owned());
        let now = Instant::now();
        let mut last_emitted = self.last_emitted.lock();
        if last_emitted
            .get(&key)
            .is_some_and(|last| now - *last < DEDUP_WINDOW)
        {
            return false;
        }
        if last_emitted.len() >= PRUNE_ABOVE {
            last_emitted.retain(|_, last| now - *last < DEDUP_WINDOW);
        }
        last_emitted.insert(key, now);
        true
    }
}
