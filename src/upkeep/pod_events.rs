//! Events about Pods whose pull secret is late or useless. The webhook can warn the creator of a Pod only, which is often
//! a controller; a person looks at the Events of the Pod.
//!
//! A Pod gets one Event per reason, and the Events of all Pods have a common rate limit. Before an Event is written, the
//! Pod is read: its annotation alone is a claim of its author.

use super::{
    Reconciler,
    queue::Queue,
    rate_limiter::RateLimiter,
    repair::pulls_with,
    usage::{PodItem, UsageIndex},
};
use crate::{names::NamespacedName, problem::Reason, pull_secret::ACRPullSecret, watch::Change};
use kube::Resource;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// The maximum number of Events per second.
const EVENTS_PER_SECOND: u32 = 5;
/// The maximum number of Pods of one pull secret that get an Event: the others have the same problem.
const MAX_PODS: usize = 50;
/// The maximum number of remembered Pods. Above it, Pods that no longer exist are forgotten.
const MAX_REPORTED: usize = 10_000;
/// How long to wait after a Pod could not be read.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// The Pods about which Events were written, and the pull secrets whose Pods may need one.
pub struct PodEvents {
    pub(super) queue: Queue,
    limiter: RateLimiter,
    reported: Mutex<HashMap<Arc<NamespacedName>, HashSet<Reason>>>,
}

impl Default for PodEvents {
    fn default() -> Self {
        Self {
            queue: Queue::default(),
            limiter: RateLimiter::new(EVENTS_PER_SECOND),
            reported: Mutex::default(),
        }
    }
}

impl PodEvents {
    /// Takes the next of these Pods that has no Event with this reason yet, and remembers it.
    fn take(
        &self,
        pods: Vec<Arc<NamespacedName>>,
        reason: Reason,
        usage: &UsageIndex,
    ) -> Option<Arc<NamespacedName>> {
        let mut reported = self.reported.lock();
        if reported.len() >= MAX_REPORTED {
            reported.retain(|pod, _| !usage.named_by(pod).is_empty());
        }
        if reported.len() >= MAX_REPORTED {
            return None;
        }
        let next = pods
            .into_iter()
            .find(|pod| reported.get(pod).is_none_or(|reasons| !reasons.contains(&reason)))?;
        reported.entry(next.clone()).or_default().insert(reason);
        Some(next)
    }

    /// Forgets a deleted Pod: another one of the same name gets Events again.
    fn forget(&self, pod: &NamespacedName) {
        self.reported.lock().remove(pod);
    }

    /// Allows another attempt for this Pod.
    fn release(&self, pod: &NamespacedName, reason: Reason) {
        if let Some(reasons) = self.reported.lock().get_mut(pod) {
            reasons.remove(&reason);
        }
    }
}

/// Why the pull secret is not Ready, and the message of the condition.
fn unready(owner: &ACRPullSecret) -> Option<(Reason, &str)> {
    let ready = owner.status.as_ref()?.ready_condition()?;
    let reason = Reason::parse(&ready.reason)?;
    (ready.status == "False").then_some((reason, ready.message.as_str()))
}

impl Reconciler {
    /// Wakes the pull secrets of a Pod that are not Ready. Most are Ready, and nothing is copied for those.
    pub(super) fn wake_for_pod(&self, change: &Change<PodItem>) {
        match change {
            Change::Applied(pod) => {
                if let Some(pod) = NamespacedName::of(pod.meta()) {
                    for key in self.usage.named_by(&pod) {
                        self.wake_if_unready(key);
                    }
                }
            }
            Change::Deleted(pod) => {
                if let Some(pod) = NamespacedName::of_reference(pod) {
                    self.pod_events.forget(&pod);
                }
            }
            _ => {}
        }
    }

    /// Wakes this pull secret if its Pods may need an Event.
    pub(super) fn wake_if_unready(&self, key: NamespacedName) {
        let object = self.upkeep.issuer.pull_secrets().get(&key);
        let owner = object.as_ref().and_then(|object| object.0.as_ref().ok());
        if owner.is_some_and(|owner| unready(owner).is_some()) {
            self.pod_events.queue.wake(key);
        }
    }

    /// Writes an Event about the next Pod of a pull secret that is not Ready. Returns the delay before the next one.
    pub(super) async fn report_to_pod(&self, key: NamespacedName) -> Option<Duration> {
        let owner = self.cached(&key)?;
        let (reason, message) = unready(&owner)?;
        let pods = self.usage.pods_naming(&key, None, MAX_PODS);
        let pod_key = self.pod_events.take(pods, reason, &self.usage)?;
        self.pod_events.limiter.acquire().await;
        if !self.leadership.still_leads() {
            return None;
        }
        match self.read_pod(&pod_key).await {
            // A Pod whose containers run has its images.
            Ok(Some(pod)) if pulls_with(&pod, &key.name) && !pod.all_containers_run() => {
                let note = format!("pull secret {} is not ready: {message}", key.name);
                let events = &self.upkeep.cluster.events;
                events.warn(pod.object_ref(&()), reason.as_str(), &note);
                Some(Duration::ZERO)
            }
            Ok(_) => Some(Duration::ZERO),
            Err(problem) => {
                tracing::debug!(%problem, "a Pod that may need an Event could not be read");
                self.pod_events.release(&pod_key, reason);
                Some(RETRY_DELAY)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Arc<NamespacedName> {
        Arc::new(NamespacedName::new("team-a", name).unwrap())
    }

    #[tokio::test]
    async fn a_pod_is_taken_once_per_reason_until_it_is_deleted() {
        let (events, usage) = (PodEvents::default(), UsageIndex::default());
        let take = |reason| {
            let pods = vec![pod("one"), pod("two")];
            events.take(pods, reason, &usage).map(|pod| pod.name.to_string())
        };
        let late = Reason::EntraUnavailable;
        assert_eq!(take(late).as_deref(), Some("one"));
        assert_eq!(take(late).as_deref(), Some("two"));
        assert_eq!(take(late), None);
        assert_eq!(take(Reason::ScopeNotGranted).as_deref(), Some("one"));
        events.forget(&pod("two"));
        assert_eq!(take(late).as_deref(), Some("two"));
        events.release(&pod("one"), late);
        assert_eq!(take(late).as_deref(), Some("one"));
        assert_eq!(take(late), None);
    }

    #[tokio::test]
    async fn the_memory_of_pods_is_bounded() {
        let (events, usage) = (PodEvents::default(), UsageIndex::default());
        for n in 0..2 * MAX_REPORTED {
            events.take(vec![pod(&format!("p-{n}"))], Reason::EntraUnavailable, &usage);
            assert!(events.reported.lock().len() <= MAX_REPORTED);
        }
    }
}
