//! Making a Secret anew that a kubelet misses, or that its registry refuses: we cannot read Secrets, so the
//! kubelets' complaints are what tells us.

use super::{Key, Work};
use crate::{
    kubernetes::{self, Pod},
    problem::Problem,
    pull_secret::{ACRPullSecret, Cause},
    telemetry::Renewal,
    watch::{self, Item, Watched},
};
use futures::{StreamExt, channel::mpsc::UnboundedReceiver};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Api, Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

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
    involved_object: ObjectReference,
    reason: Option<String>,
    message: Option<String>,
}

impl Watched for Event {
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        watch::read(deserializer, |metadata, body| Self { metadata, body })
    }
}

/// What a kubelet complains of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// There is no such Secret.
    Missing,
    /// Nor is there, as far as we see, an `ACRPullSecret`: ours, not a kubelet's.
    NoTrace,
    /// The registry does not take what is in it.
    Refused,
}

/// When each pull secret was last repaired, and how often in a row.
#[derive(Default)]
pub struct Repairs(Mutex<HashMap<Key, (Instant, u32)>>);

/// A complaint comes again with each of the kubelet's tries, and its cause may be another one: an image that the
/// identity may not pull is refused with every token.
const MIN_BETWEEN: Duration = Duration::from_secs(10);
const MAX_BETWEEN: Duration = Duration::from_secs(600);

/// A repair that was found worth it.
pub struct Job {
    pod: Key,
    complaint: Complaint,
    names: Vec<String>,
}

/// Few: what fails is waited for, and there is no hurry beyond the kubelet's own.
const AT_ONCE: usize = 8;

/// Does the jobs.
pub async fn run(work: Arc<Work>, jobs: UnboundedReceiver<Job>) {
    jobs.for_each_concurrent(AT_ONCE, |job| work.do_job(job)).await;
}

// === impl Complaint ===

impl Complaint {
    /// What this Event of a kubelet complains of, and the Pod.
    pub fn of(event: &Event) -> Option<(Key, Self)> {
        let Event { body: event, .. } = event;
        let about = &event.involved_object;
        let pod = (about.namespace.clone()?, about.name.clone()?);
        let message = event.message.as_deref().unwrap_or_default();
        match event.reason.as_deref()? {
            "FailedToRetrieveImagePullSecret" => Some((pod, Complaint::Missing)),
            // The words of containerd and of registries for 401 and 403.
            "Failed"
                if message.contains("pull")
                    && ["401", "403", "nauthorized", "authorization failed", "denied"]
                        .iter()
                        .any(|word| message.contains(word)) =>
            {
                Some((pod, Complaint::Refused))
            }
            _ => None,
        }
    }
}

// === impl Repairs ===

impl Repairs {
    /// Whether it is time to repair this one; counts it as done if so.
    fn is_time(&self, key: &Key, complaint: Complaint) -> bool {
        let mut repairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let in_a_row = match repairs.get(key) {
            None => 0,
            Some((last, in_a_row)) => {
                let wait = match complaint {
                    Complaint::Missing | Complaint::NoTrace => MIN_BETWEEN,
                    Complaint::Refused => MIN_BETWEEN
                        .saturating_mul(2_u32.saturating_pow(*in_a_row))
                        .min(MAX_BETWEEN),
                };
                if now - *last < wait {
                    return false;
                }
                // Long after, it is another matter.
                if now - *last > MAX_BETWEEN * 2 {
                    0
                } else {
                    in_a_row + 1
                }
            }
        };
        repairs.insert(key.clone(), (now, in_a_row));
        true
    }

    /// The pull secret is gone.
    pub fn forget(&self, key: &Key) {
        // One that was deleted by hand is repaired at once, and then not sooner than any other.
        let mut repairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((last, _)) = repairs.get(key)
            && last.elapsed() > MAX_BETWEEN
        {
            repairs.remove(key);
        }
    }
}

// === impl Work ===

impl Work {
    /// Takes up a complaint about a Pod of ours, where it is time to.
    pub(super) fn complained(&self, pod: Key, complaint: Complaint) {
        let names: Vec<_> = self
            .usage
            .named_by(&pod)
            .into_iter()
            .filter(|name| {
                let key = (pod.0.clone(), name.clone());
                // Our own complaint may be a false alarm, which is no repair: it is counted when it is confirmed.
                self.trouble(&key).is_none()
                    && (complaint == Complaint::NoTrace || self.repairs.is_time(&key, complaint))
            })
            .collect();
        if !names.is_empty() {
            let job = Job {
                pod,
                complaint,
                names,
            };
            // The other end lives as long as we do.
            let _ = self.jobs.unbounded_send(job);
        }
    }

    async fn do_job(
        &self,
        Job {
            pod,
            complaint,
            names,
        }: Job,
    ) {
        self.pace.turn().await;
        if !self.term.still_leads() {
            return;
        }
        // The watch of Pods may be ahead of that of pull secrets.
        let names = match complaint {
            Complaint::NoTrace => self.without_trace(&pod.0, names).await,
            _ => names,
        };
        if names.is_empty() {
            return;
        }
        let outcome = self.repair(&pod, &names).await;
        let (namespace, pod) = &pod;
        match &outcome {
            Ok(()) => tracing::info!(namespace, pod, ?complaint, "pull secret repaired"),
            Err(problem) => tracing::warn!(namespace, pod, ?complaint, %problem, "pull secret not repaired"),
        }
        self.upkeep.metrics.renewal(Renewal::Repaired, &outcome);
    }

    /// Those that the API server knows nothing of. In doubt, one is made anew for nothing.
    async fn without_trace(&self, namespace: &str, names: Vec<String>) -> Vec<String> {
        let api = Api::<ACRPullSecret>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let missing = futures::stream::iter(names).filter_map(async |name| {
            let found = kubernetes::bounded("looking for an ACRPullSecret", api.get_opt(&name)).await;
            let key = (namespace.to_owned(), name);
            let missing = !matches!(found, Ok(Some(_))) && self.repairs.is_time(&key, Complaint::NoTrace);
            missing.then_some(key.1)
        });
        missing.collect().await
    }

    /// Issues anew those of the Pod's pull secrets, as its admission would.
    async fn repair(&self, (namespace, name): &Key, names: &[String]) -> Result<(), Problem> {
        let what = format!("reading Pod {namespace}/{name}");
        let api = Api::<Pod>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let Some(pod) = kubernetes::call(&what, api.get_opt(name)).await? else {
            return Ok(());
        };
        for wish in self.upkeep.admission.wishes_of(&pod).await? {
            let order = self.upkeep.catalog.resolve(&wish).await?.order;
            if names.contains(&order.name) {
                self.upkeep.issuer.renew(order, Cause::Repair).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn complaint(reason: &str, message: &str) -> Option<Complaint> {
        let event = json!({
            "metadata": {"name": "x"},
            "involvedObject": {"kind": "Pod", "namespace": "team-a", "name": "app"},
            "reason": reason,
            "message": message,
        });
        let Item(Ok(event)) = serde_json::from_str(&event.to_string()).unwrap() else {
            panic!("the Event is readable");
        };
        Complaint::of(&event).map(|(pod, complaint)| {
            assert_eq!(pod, ("team-a".to_owned(), "app".to_owned()));
            complaint
        })
    }

    #[test]
    fn kubelets_are_understood() {
        let missing = "Unable to retrieve some image pull secrets (acr-pull-contoso-app); attempting to pull the image may not succeed.";
        assert_eq!(
            complaint("FailedToRetrieveImagePullSecret", missing),
            Some(Complaint::Missing)
        );
        for refused in [
            "Failed to pull image \"contoso.azurecr.io/app:1\": failed to authorize: failed to fetch oauth token: unexpected status from GET request to https://contoso.azurecr.io/oauth2/token: 401 Unauthorized",
            "Failed to pull image \"contoso.azurecr.io/app:1\": pull access denied, repository does not exist or may require authorization",
        ] {
            assert_eq!(
                complaint("Failed", refused),
                Some(Complaint::Refused),
                "{refused}"
            );
        }
        for other in [
            "Error: ImagePullBackOff",
            "Failed to pull image \"contoso.azurecr.io/app:1\": not found",
            "Error: cannot start",
        ] {
            assert_eq!(complaint("Failed", other), None, "{other}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_complaint_again_and_again_becomes_no_loop() {
        let (repairs, key) = (Repairs::default(), ("a".to_owned(), "b".to_owned()));
        let mut repaired = 0;
        for _ in 0..3600 {
            repaired += u32::from(repairs.is_time(&key, Complaint::Refused));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert!((8..=14).contains(&repaired), "{repaired} in an hour");
    }
}
