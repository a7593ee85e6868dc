//! Repairs pull secrets: issues a new token for a Secret that a kubelet misses or its registry refuses, and restores an
//! `ACRPullSecret` that was deleted while a Pod names it.

mod record;
mod refusal;

pub use record::Repairs;

use super::{
    Reconciler,
    pull_failure::{FailureCause, PullFailure},
};
use crate::{
    kubernetes,
    live_pod::{LivePod, MIRROR_POD_ANNOTATION},
    names::NamespacedName,
    problem::Problem,
    pull_secret::{ACRPullSecret, Cause},
    telemetry::RenewalOutcome,
    watch::Item,
};
use jiff::{SignedDuration, Timestamp};
use kube::Api;
use record::{MAX_INTERVAL, MIN_INTERVAL};
use refusal::Refusal;
use std::time::Duration;

/// An Event that is older than the last renewal concerns the previous token. The clocks of node and webhook differ by
/// less than this. If the new token fails too, the kubelet reports that with its next attempt.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(5);
/// How often a Pod is read for one failure: a kubelet writes its Event shortly before the status of the Pod.
const MAX_POD_READS: u32 = 2;
/// How many of the Pods that name a pull secret are read per attempt to restore it.
const MAX_PODS_PER_RESTORE: usize = 4;

/// A request to repair a pull secret, because a kubelet reported a failed pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairRequest {
    pod: NamespacedName,
    reported_at: Timestamp,
    /// Whether the registry refused the token; otherwise the Secret is missing.
    refused: bool,
    pod_reads: u32,
}

impl RepairRequest {
    /// Whether the failure was reported before this renewal, and so concerns an earlier token.
    fn precedes(&self, renewed: Option<Timestamp>) -> bool {
        renewed.is_some_and(|renewed| self.reported_at.duration_since(renewed) <= CLOCK_SKEW)
    }

    /// Whether the Pod confirms the failure.
    fn check(&self, pod: Option<&LivePod>, name: &str, registry: Option<&str>) -> Verdict {
        let Some(pod) = pod.filter(|pod| pulls_with(pod, name)) else {
            return Verdict::Rejected;
        };
        let confirmed = match (self.refused, registry) {
            (true, Some(registry)) => pod.fails_to_pull_from(registry),
            (true, None) => false,
            // Kubelets before 1.37 report a missing Secret for running Pods too.
            (false, _) => !pod.all_containers_run(),
        };
        if confirmed {
            Verdict::Confirmed
        } else if self.pod_reads < MAX_POD_READS {
            Verdict::NotYet
        } else {
            Verdict::Rejected
        }
    }
}

/// Whether a Pod confirms a reported failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Confirmed,
    /// The status of the Pod may confirm it a moment later.
    NotYet,
    Rejected,
}

/// Whether the Pod's spec names the Secret. Its annotation does not count: users who cannot create Pods may write it.
pub(super) fn pulls_with(pod: &LivePod, name: &str) -> bool {
    let is_mirror = pod
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(MIRROR_POD_ANNOTATION));
    let mut secrets = pod.spec.image_pull_secrets.iter().flatten();
    !is_mirror && secrets.any(|secret| secret.name == name)
}

/// The result of a repair that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new token was issued.
    Repaired,
    /// No Pod needs the repair.
    NothingToDo,
}

impl Reconciler {
    /// Requests a repair of the Pod's pull secrets that this failure concerns.
    pub(super) fn on_pull_failure(&self, failure: &PullFailure) {
        for key in self.usage.named_by(&failure.pod) {
            let owner = self.cached(&key);
            let registry = owner.as_ref().and_then(ACRPullSecret::registry);
            if !failure.concerns(&key.name, registry) {
                continue;
            }
            let request = RepairRequest {
                pod: failure.pod.clone(),
                reported_at: failure.reported_at,
                refused: matches!(failure.cause, FailureCause::Refused(_)),
                pod_reads: 0,
            };
            if !request.precedes(owner.as_ref().and_then(ACRPullSecret::last_renewal)) {
                self.repairs.request(key.clone(), request);
                self.queue.wake(key);
            }
        }
    }

    /// Answers a pending complaint, or checks whether the refusal that the status reports has ended. Returns a delay if
    /// there is more to do.
    pub(super) async fn repair(
        &self,
        owner: &ACRPullSecret,
        key: &NamespacedName,
    ) -> Result<Option<Duration>, Problem> {
        match self.answer_complaint(owner, key).await? {
            None => self.check_refusal(owner, key).await,
            wait => Ok(wait),
        }
    }

    /// Repairs a pull secret if that is requested and the Pod confirms the failure. Returns a delay if it must wait.
    async fn answer_complaint(
        &self,
        owner: &ACRPullSecret,
        key: &NamespacedName,
    ) -> Result<Option<Duration>, Problem> {
        let Some((request, wait)) = self.repairs.pending(key) else {
            return Ok(None);
        };
        if request.precedes(owner.last_renewal()) {
            self.repairs.resolve(key, request.reported_at);
            return Ok(None);
        }
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        self.pod_read_limiter.acquire().await;
        self.repairs.record_pod_read(key);
        let pod = self.read_pod(&request.pod).await?;
        // The copy does not include the read that was just recorded.
        let request = RepairRequest {
            pod_reads: request.pod_reads + 1,
            ..request
        };
        match request.check(pod.as_ref(), &key.name, owner.registry()) {
            Verdict::Confirmed => {}
            Verdict::NotYet => return Ok(Some(MIN_INTERVAL)),
            Verdict::Rejected => {
                self.repairs.resolve(key, request.reported_at);
                self.record_outcome(key, &Ok(Outcome::NothingToDo));
                return Ok(None);
            }
        }
        self.write_limiter.acquire().await;
        if !self.leadership.still_leads() {
            return Ok(None);
        }
        self.reissue(owner, key, &request).await?;
        Ok(None)
    }

    /// Issues the token again for a confirmed failure. If that was useless before, the status reports the refusal.
    async fn reissue(
        &self,
        owner: &ACRPullSecret,
        key: &NamespacedName,
        request: &RepairRequest,
    ) -> Result<(), Problem> {
        if request.refused && self.repairs.was_useless(key, owner.inputs_hash()) {
            self.repairs.set_refusal(key, Refusal::new(owner, &request.pod));
        }
        // The token is issued again all the same: a role may have been granted meanwhile.
        let renewed = self.renew(key, owner, |refusal| Cause::Repair { refusal }).await;
        self.record_outcome(
            key,
            &renewed.clone().and_then(|renewed| match renewed.refusal {
                None => Ok(Outcome::Repaired),
                Some(refusal) => Err(refusal),
            }),
        );
        let renewed = renewed?;
        self.repairs.resolve(key, request.reported_at);
        self.repairs.record_repair(key);
        let refused_inputs = request.refused.then_some(renewed.inputs_hash);
        self.repairs.record_refused_inputs(key, refused_inputs);
        Ok(())
    }

    /// Restores a deleted `ACRPullSecret` from a Pod that names it.
    pub(super) async fn restore(&self, key: &NamespacedName) -> Result<Option<Duration>, Problem> {
        if let Some(left) = self.backoff_left(key) {
            return Ok(Some(left));
        }
        let wait = self.repairs.wait(key);
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        self.write_limiter.acquire().await;
        if !self.leadership.still_leads() {
            return Ok(None);
        }
        let NamespacedName { namespace, name } = key;
        let what = format!("looking for ACRPullSecret {namespace}/{name}");
        let api = Api::<ACRPullSecret>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        // The watch of Pods may be ahead of the watch of pull secrets.
        if kubernetes::call(&what, api.get_opt(name)).await?.is_some() {
            return Ok(Some(MIN_INTERVAL));
        }
        self.repairs.record_pod_read(key);
        let outcome = self.restore_from_any_pod(key).await;
        self.record_outcome(key, &outcome);
        match outcome? {
            Outcome::Repaired => {
                self.clear_backoff(key);
                self.repairs.record_repair(key);
                // A fallback: the watch reports the new object and wakes the key.
                Ok(Some(MAX_INTERVAL))
            }
            // The next attempt reads other Pods that name it.
            Outcome::NothingToDo => Ok(Some(MAX_INTERVAL)),
        }
    }

    async fn restore_from_any_pod(&self, key: &NamespacedName) -> Result<Outcome, Problem> {
        let after = self.repairs.last_pod(key);
        for pod_key in self
            .usage
            .pods_naming(key, after.as_deref(), MAX_PODS_PER_RESTORE)
        {
            self.repairs.set_last_pod(key, pod_key.clone());
            let pod = self.read_pod(&pod_key).await?;
            let Some(pod) = pod.filter(|pod| pulls_with(pod, &key.name)) else {
                continue;
            };
            if self.restore_from_pod(key, &pod).await? == Outcome::Repaired {
                return Ok(Outcome::Repaired);
            }
        }
        Ok(Outcome::NothingToDo)
    }

    /// Issues this pull secret as the admission of the Pod would, but none of its other pull secrets.
    async fn restore_from_pod(&self, key: &NamespacedName, pod: &LivePod) -> Result<Outcome, Problem> {
        let requests = self.upkeep.admission.requests_of(&key.namespace, pod).await?;
        let Some(request) = requests
            .into_iter()
            .find(|request| request.can_be_named(&key.name))
        else {
            return Ok(Outcome::NothingToDo);
        };
        let outcome = async {
            let plan = self
                .upkeep
                .resolver
                .resolve(&request)
                .await?
                .plan
                .named(&key.name);
            if !self.leadership.still_leads() {
                return Ok(Outcome::NothingToDo);
            }
            let cause = Cause::Repair { refusal: None };
            self.upkeep.issuer.renew(plan, cause).await?;
            Ok(Outcome::Repaired)
        };
        let outcome = outcome.await;
        outcome.inspect_err(|problem| self.upkeep.resolver.warn_on_generator(&request, problem))
    }

    /// Reads a Pod. Returns `None` if it does not exist or cannot be decoded, as such a Pod confirms nothing.
    pub(super) async fn read_pod(
        &self,
        NamespacedName { namespace, name }: &NamespacedName,
    ) -> Result<Option<LivePod>, Problem> {
        let what = format!("reading Pod {namespace}/{name}");
        let api = Api::<Item<LivePod>>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let found = kubernetes::call(&what, api.get_opt(name)).await?;
        Ok(found.and_then(|pod| pod.0.ok()))
    }

    fn record_outcome(
        &self,
        NamespacedName { namespace, name }: &NamespacedName,
        outcome: &Result<Outcome, Problem>,
    ) {
        let success = match outcome {
            Ok(Outcome::Repaired) => {
                tracing::info!(
                    namespace = namespace.as_str(),
                    name = name.as_str(),
                    "pull secret repaired"
                );
                RenewalOutcome::Repaired
            }
            Ok(Outcome::NothingToDo) => {
                tracing::debug!(
                    namespace = namespace.as_str(),
                    name = name.as_str(),
                    "pull secret not repaired: no Pod confirms that it needs a repair"
                );
                RenewalOutcome::NothingToDo
            }
            Err(problem) => {
                tracing::warn!(namespace = namespace.as_str(), name = name.as_str(), %problem, "pull secret could not be repaired");
                RenewalOutcome::Failed
            }
        };
        self.upkeep
            .metrics
            .count_renewal(success, &outcome.as_ref().map(drop).map_err(Clone::clone));
    }
}

#[cfg(test)]
mod tests;
