//! What kubelets say about pulls that fail. We cannot read Secrets, so that is what tells us of one that is missing or that
//! its registry refuses.
//!
//! Anybody who may write Events says the same: what is read here is a claim, which names a Pod, pull secrets and a time. It
//! is believed where the Pod itself agrees.

use super::Key;
use crate::{
    admission::MAX_REFERENCES,
    pull_secret::is_pull_secret,
    watch::{self, Item, Watched},
};
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer};

/// The longest message that is looked at, in bytes. What matters of a kubelet's stands at its beginning.
const MAX_MESSAGE: usize = 4096;
/// The clock of a node is not further ahead than this; an Event of a later time was not written by a kubelet.
const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// An Event, of which nothing else is read.
#[derive(Clone, Debug, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Event")]
pub struct Event {
    metadata: ObjectMeta,
    body: Body,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    involved_object: InvolvedObject,
    reason: Option<String>,
    #[serde(default, deserialize_with = "message")]
    message: String,
    series: Option<Series>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    first_timestamp: Option<String>,
}

impl Watched for Event {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::decode(deserializer, |metadata, body| Self { metadata, body })
    }
}

#[derive(Clone, Debug, Deserialize)]
struct InvolvedObject {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<String>,
}

/// A claim about some of the pull secrets of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// Namespace and name of the Pod.
    pub pod: Key,
    /// When the kubelet said so, by the clock of its node.
    pub at: Timestamp,
    /// What it said.
    pub what: What,
}

/// What is wrong with pull secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// There are no Secrets of these names.
    Missing(Vec<String>),
    /// A registry that this message names does not take what is in the Secret.
    Refused(String),
}

// === impl Complaint ===

impl Complaint {
    /// What this Event claims, if it is one of a kubelet about pull secrets of ours.
    pub fn of(event: &Event, now: Timestamp) -> Option<Self> {
        let Event {
            metadata,
            body: event,
        } = event;
        let InvolvedObject { namespace, name } = &event.involved_object;
        let pod = (namespace.clone()?, name.clone()?);
        // The API server does not compare these of an Event with `eventTime`: it could be about anybody's Pod.
        if metadata.namespace.as_deref() != Some(&pod.0) {
            return None;
        }
        let at = event.last_time()?;
        if at.duration_since(now) > MAX_AHEAD {
            return None;
        }
        let what = match event.reason.as_deref()? {
            "FailedToRetrieveImagePullSecret" => What::Missing(missing(&event.message)?),
            "Failed" if event.message.contains("pull") && says_refused(&event.message) => {
                What::Refused(event.message.clone())
            }
            _ => return None,
        };
        Some(Self { pod, at, what })
    }

    /// Whether it is about the pull secret of this name, which is for this registry.
    pub fn is_about(&self, name: &str, registry: Option<&str>) -> bool {
        match &self.what {
            What::Missing(names) => names.iter().any(|missing| missing == name),
            What::Refused(message) => registry.is_some_and(|registry| refuses(message, registry)),
        }
    }
}

// === impl Body ===

impl Body {
    /// When it was last told. A time that cannot be read is none of a kubelet's.
    fn last_time(&self) -> Option<Timestamp> {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time.as_ref());
        let time = series
            .or(self.last_timestamp.as_ref())
            .or(self.event_time.as_ref())
            .or(self.first_timestamp.as_ref());
        time?.parse().ok()
    }
}

/// The pull secrets of ours among the names in the parentheses of `Unable to retrieve some image pull secrets (a, b); …`.
fn missing(message: &str) -> Option<Vec<String>> {
    let (_, rest) = message.split_once('(')?;
    // A long message has been cut.
    let names = rest.split_once(')').map_or(rest, |(names, _)| names);
    let ours = names
        .split(',')
        .map(str::trim)
        .filter(|name| is_pull_secret(name));
    let ours: Vec<_> = ours.take(MAX_REFERENCES).map(str::to_owned).collect();
    (!ours.is_empty()).then_some(ours)
}

/// Whether the message says, after it has named an image of this registry, that the registry refused.
fn refuses(message: &str, registry: &str) -> bool {
    message.match_indices(registry).any(|(at, _)| {
        let (before, after) = (&message[..at], &message[at + registry.len()..]);
        let begins = before.is_empty() || before.ends_with([' ', '"']) || before.ends_with("//");
        begins && after.starts_with('/') && says_refused(after)
    })
}

/// Whether there are the words of container runtimes and registries for 401 and 403. Image references and URLs are no words:
/// a tag or digest may hold these numbers.
fn says_refused(message: &str) -> bool {
    let words = message
        .split_whitespace()
        .filter(|word| !word.contains(['/', '@']));
    let mut before = "";
    for word in words {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is = |refusal: &str| word.eq_ignore_ascii_case(refusal);
        if ["401", "403", "unauthorized", "denied", "forbidden"]
            .into_iter()
            .any(is)
            || (before.eq_ignore_ascii_case("authorization") && is("failed"))
        {
            return true;
        }
        before = word;
    }
    false
}

fn message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let message = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(message[..message.floor_char_boundary(MAX_MESSAGE)].to_owned())
}

#[cfg(test)]
mod tests;
