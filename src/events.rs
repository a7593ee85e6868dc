//! Kubernetes Events about pull secrets, generators and this replica's Pod.
//!
//! A refusal that every Pod of a burst causes is emitted once per `DEDUP_WINDOW`. kube's recorder is not used: it names
//! an Event by the name of its object and a suffix, and API servers refuse that if the object has a long name. It also
//! makes one call for each repetition of an Event, to increase its count.

use crate::{
    kubernetes,
    problem::whole_lines,
    telemetry::FIELD_MANAGER,
    untrusted::{self, UntrustedText},
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// An Event with the same object and reason is not emitted again within this time.
const DEDUP_WINDOW: Duration = Duration::from_secs(300);
/// The API limits notes to 1 KiB, which includes the mark of a truncation.
const MAX_NOTE: usize = 1000;
/// The types of Events.
const NORMAL: &str = "Normal";
const WARNING: &str = "Warning";
/// Each Event is about an attempt to issue a pull secret, which is what the API calls an action.
const ACTION: &str = "Issue";
/// The longest beginning of a generated name. The API server keeps 58 bytes of it, one of which is a hyphen here.
/// Source:
/// <https://github.com/kubernetes/kubernetes/blob/v1.37.2/staging/src/k8s.io/apiserver/pkg/storage/names/generate.go>.
const MAX_NAME_PREFIX: usize = 57;
/// The namespace of Events about objects that are not in a namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// Above this number of remembered Events, those older than `DEDUP_WINDOW` are removed.
const PRUNE_ABOVE: usize = 4096;

/// Emits Events. Clones share the record of what was emitted.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    client: Client,
    /// The name of this replica: that of its Pod, if the program runs in a Pod.
    instance: String,
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
        Self(Arc::new(Inner {
            client,
            instance: pod.unwrap_or_else(|| FIELD_MANAGER.to_owned()),
            own_pod,
            last_emitted: Mutex::default(),
        }))
    }

    /// Emits a Warning about this object.
    pub fn warn(&self, about: ObjectReference, reason: &'static str, note: &str) {
        self.emit(about, WARNING, reason, note);
    }

    /// Emits a Normal Event about this object.
    pub fn note(&self, about: ObjectReference, reason: &'static str, note: &str) {
        self.emit(about, NORMAL, reason, note);
    }

    /// Emits a Warning about this replica's Pod, if the program runs in a Pod. Warnings with different `subject`s do
    /// not suppress each other.
    pub fn warn_about_own_pod(&self, subject: &'static str, reason: &'static str, note: &str) {
        if let Some(pod) = &self.0.own_pod
            && self.0.should_emit(subject, reason)
        {
            self.publish(pod.clone(), WARNING, reason, note);
        }
    }

    fn emit(&self, about: ObjectReference, type_: &str, reason: &'static str, note: &str) {
        if self
            .0
            .should_emit(about.uid.as_deref().unwrap_or_default(), reason)
        {
            self.publish(about, type_, reason, note);
        }
    }

    /// Publishes in the background: nobody waits for an Event, and losing one is not a failure.
    fn publish(&self, about: ObjectReference, type_: &str, reason: &'static str, note: &str) {
        let namespace = about.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let events = Api::namespaced(self.0.client.clone(), namespace);
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(name_prefix(&about)),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            type_: Some(type_.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(bounded_note(note)),
            action: Some(ACTION.to_owned()),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.0.instance.clone()),
            regarding: Some(about),
            ..Event::default()
        };
        tokio::spawn(async move {
            if let Err(error) = events.create(&PostParams::default(), &event).await {
                tracing::debug!(
                    reason,
                    error = %UntrustedText::new(&error.to_string()),
                    "an Event could not be written"
                );
            }
        });
    }
}

/// The beginning of the name of an Event, which the API server completes.
fn name_prefix(about: &ObjectReference) -> String {
    let name = about.name.as_deref().unwrap_or(FIELD_MANAGER);
    let cut = &name[..name.floor_char_boundary(MAX_NAME_PREFIX)];
    format!("{}-", cut.trim_end_matches(['-', '.']))
}

/// The sentence of the note, and its command if there is room for all of it.
fn bounded_note(note: &str) -> String {
    let lines = whole_lines(note, MAX_NOTE).lines();
    let lines: Vec<_> = lines
        .map(|line| untrusted::sanitize(line.to_owned(), MAX_NOTE))
        .collect();
    lines.join("\n")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{MAX_NAME_LENGTH, ObjectName};

    #[test]
    fn the_generated_name_of_an_event_is_a_valid_name() {
        let (long, dotted) = ("a".repeat(MAX_NAME_LENGTH), format!("{}.b", "a".repeat(56)));
        for (name, expected) in [
            (Some("contoso"), "contoso-".to_owned()),
            (Some(&*long), format!("{}-", "a".repeat(MAX_NAME_PREFIX))),
            (Some(&*dotted), format!("{}-", "a".repeat(56))),
            (None, format!("{FIELD_MANAGER}-")),
        ] {
            let about = ObjectReference {
                name: name.map(str::to_owned),
                ..ObjectReference::default()
            };
            let prefix = name_prefix(&about);
            assert_eq!(prefix, expected);
            assert!(ObjectName::new(&format!("{prefix}x7k2p")).is_some(), "{prefix}");
        }
    }

    #[test]
    fn a_note_contains_a_whole_command_or_none() {
        let sentence = "s".repeat(250);
        let fits = format!("{sentence}\n{}", "c".repeat(749));
        assert_eq!(bounded_note(&fits), fits);
        let long = format!("{sentence}\n{}", "c".repeat(750));
        assert_eq!(bounded_note(&long), sentence);
        assert_eq!(bounded_note("a\rb\nc"), "a\\rb\nc");
        assert!(bounded_note(&"x".repeat(5000)).len() <= MAX_NOTE + '…'.len_utf8());
    }
}
