//! Kubelets' Events about failed pulls. The webhook cannot read Secrets, so it learns from these Events that a Secret
//! is missing or that its registry refuses it.
//!
//! Anybody who may write Events can write the same. An Event is therefore a claim, which names a Pod, pull secrets and
//! a time, and which must be confirmed by the Pod.

use crate::{
    admission::MAX_REFERENCES,
    names::{NamespacedName, ObjectName},
    pull_secret::parse_name,
    text::Text,
    watch::{self, Item, Watched},
};
use jiff::{SignedDuration, Timestamp};
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer};

/// The longest message that is read, in bytes. The relevant part of a kubelet's message is at its beginning.
const MAX_MESSAGE_BYTES: usize = 4096;
/// How far the clock of a node may be ahead. An Event with a later time was not written by a kubelet.
const MAX_CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The parts of an Event that upkeep needs.
#[derive(Clone, Debug, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Event")]
pub struct Event {
    metadata: ObjectMeta,
    body: Body,
}

impl Watched for Event {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::decode(deserializer, |metadata, body| Self { metadata, body })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    involved_object: InvolvedObject,
    reason: Option<String>,
    #[serde(default, deserialize_with = "truncated_message")]
    message: String,
    series: Option<Series>,
    last_timestamp: Option<String>,
    event_time: Option<String>,
    first_timestamp: Option<String>,
}

impl Body {
    /// When the Event was last observed. A kubelet's Event always has a valid time.
    fn last_observed(&self) -> Option<Timestamp> {
        let series = self.series.as_ref().and_then(|s| s.last_observed_time.as_ref());
        let time = series
            .or(self.last_timestamp.as_ref())
            .or(self.event_time.as_ref())
            .or(self.first_timestamp.as_ref());
        time?.parse().ok()
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

fn truncated_message<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let message = Option::<Text<'de>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(message[..message.floor_char_boundary(MAX_MESSAGE_BYTES)].to_owned())
}

/// A reported failure to pull with pull secrets of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullFailure {
    /// Namespace and name of the Pod.
    pub pod: NamespacedName,
    /// When the kubelet reported the failure, by the clock of its node.
    pub reported_at: Timestamp,
    /// Why the pull failed.
    pub cause: FailureCause,
}

/// Why a pull failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The Secrets with these names do not exist.
    SecretsMissing(Vec<ObjectName>),
    /// A registry refused the credentials. The message names the registry.
    Refused(String),
}

impl PullFailure {
    /// The failure that this Event reports, if it is a kubelet's Event about pull secrets of the webhook.
    pub fn from_event(event: &Event, now: Timestamp) -> Option<Self> {
        let Event {
            metadata,
            body: event,
        } = event;
        let InvolvedObject { namespace, name } = &event.involved_object;
        let pod = NamespacedName::new(namespace.as_deref()?, name.as_deref()?)?;
        // The API server does not compare these namespaces in an Event with `eventTime`, so any Pod could be named.
        if metadata.namespace.as_deref() != Some(pod.namespace.as_str()) {
            return None;
        }
        let reported_at = event.last_observed()?;
        if reported_at.duration_since(now) > MAX_CLOCK_SKEW {
            return None;
        }
        let cause = match event.reason.as_deref()? {
            "FailedToRetrieveImagePullSecret" => {
                FailureCause::SecretsMissing(missing_pull_secrets(&event.message)?)
            }
            "Failed" if event.message.contains("pull") && mentions_refusal(&event.message) => {
                FailureCause::Refused(event.message.clone())
            }
            _ => return None,
        };
        Some(Self {
            pod,
            reported_at,
            cause,
        })
    }

    /// Whether the failure concerns the pull secret with this name, which is for this registry.
    pub fn concerns(&self, name: &str, registry: Option<&str>) -> bool {
        match &self.cause {
            FailureCause::SecretsMissing(names) => names.iter().any(|missing| *missing == *name),
            FailureCause::Refused(message) => {
                registry.is_some_and(|registry| mentions_refusal_by(message, registry))
            }
        }
    }
}

/// The webhook's pull secrets among the names in parentheses in `Unable to retrieve some image pull secrets (a, b); …`.
fn missing_pull_secrets(message: &str) -> Option<Vec<ObjectName>> {
    let (_, rest) = message.split_once('(')?;
    // The closing parenthesis is missing if the message was truncated.
    let names = rest.split_once(')').map_or(rest, |(names, _)| names);
    let pull_secrets: Vec<_> = names
        .split(',')
        .map(str::trim)
        .filter_map(parse_name)
        .take(MAX_REFERENCES)
        .collect();
    (!pull_secrets.is_empty()).then_some(pull_secrets)
}

/// Whether the message mentions a refusal after it has named an image of this registry.
fn mentions_refusal_by(message: &str, registry: &str) -> bool {
    message.match_indices(registry).any(|(at, _)| {
        let before = &message[..at];
        let after = &message[at + registry.len()..];
        let starts_reference = before.is_empty() || before.ends_with([' ', '"']) || before.ends_with("//");
        starts_reference && after.starts_with('/') && mentions_refusal(after)
    })
}

/// Whether the message contains the words with which container runtimes and registries report 401 and 403. Image
/// references and URLs are skipped, as a tag or digest may contain these numbers.
fn mentions_refusal(message: &str) -> bool {
    let words = message
        .split_whitespace()
        .filter(|word| !word.contains(['/', '@']));
    let mut previous = "";
    for word in words {
        let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let is = |refusal: &str| word.eq_ignore_ascii_case(refusal);
        if ["401", "403", "unauthorized", "denied", "forbidden"]
            .into_iter()
            .any(is)
            || (previous.eq_ignore_ascii_case("authorization") && is("failed"))
        {
            return true;
        }
        previous = word;
    }
    false
}

#[cfg(test)]
mod tests;
