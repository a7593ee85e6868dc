//! The leader's work: renews and repairs the pull secrets that live Pods name, and collects those that no Pod has named
//! for a while.

mod collection;
mod overview;
mod pod_events;
mod pull_failure;
mod queue;
mod rate_limiter;
mod repair;
mod schedule;
mod step;
mod usage;
mod watches;

use crate::{
    admission::Admission,
    cluster::Cluster,
    leader::Leadership,
    names::NamespacedName,
    problem::Problem,
    pull_secret::{ACRPullSecret, Cause, Issuer, PullSecretRequest, Resolution, Resolver, WatchedPullSecret},
    telemetry::{Metrics, RenewalOutcome},
    watch::Item,
};
use futures::FutureExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use pod_events::PodEvents;
use queue::Queue;
use rate_limiter::RateLimiter;
use repair::Repairs;
use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use step::{Knowledge, Step, next_step};
use tokio::{sync::Notify, time::Instant};
use usage::{Usage, UsageIndex};

/// How long a new leader waits for the list of Pods before it renews pull secrets that may be unused.
const POD_LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest time until a pull secret is reconciled again. Bounded because the clock may be set.
const MAX_REQUEUE: Duration = Duration::from_secs(600);

/// Settings of the upkeep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a pull secret is unused before its deletion is announced.
    pub unused_grace: Duration,
    /// How long after the announcement it is deleted.
    pub unused_notice: Duration,
    /// The maximum number of concurrent renewals.
    pub concurrency: u16,
    /// The maximum number of renewals per second.
    pub rate: u32,
}

/// The dependencies of the upkeep, which outlive a leadership.
#[derive(Clone)]
pub struct Upkeep {
    /// The cluster with the Pods.
    pub cluster: Cluster,
    /// Resolves the requests of Pods.
    pub resolver: Arc<Resolver>,
    /// Issues pull secrets.
    pub issuer: Issuer,
    /// Reads the requests from Pods.
    pub admission: Admission,
    /// The settings.
    pub settings: Settings,
    /// The metrics.
    pub metrics: Metrics,
}

impl Upkeep {
    /// Whether this replica may lead. It may not while its view of the pull secrets is outdated.
    pub fn can_lead(&self) -> bool {
        self.issuer.pull_secrets().is_current()
    }

    /// Reconciles pull secrets until the future is dropped, which is when the leadership ends.
    pub async fn run(self, leadership: Leadership) {
        let rate = self.settings.rate;
        let reconciler = Reconciler {
            write_limiter: RateLimiter::new(rate),
            pod_read_limiter: RateLimiter::new(rate),
            started: Instant::now(),
            usage: UsageIndex::default(),
            pods_listed: Notify::new(),
            queue: Queue::default(),
            leadership,
            backoffs: Mutex::default(),
            collection: collection::Collection::default(),
            repairs: Repairs::default(),
            pod_events: PodEvents::default(),
            upkeep: self,
        };
        let slots = reconciler.upkeep.settings.concurrency.into();
        tokio::join!(
            watches::pull_secrets(&reconciler),
            watches::pods(&reconciler),
            watches::failed_pulls(&reconciler),
            overview::report(&reconciler),
            reconciler
                .pod_events
                .queue
                .run(1, |key| Box::pin(reconciler.report_to_pod(key))),
            reconciler
                .queue
                .run(slots, |key| Box::pin(reconciler.reconcile(key))),
        );
    }
}

/// The state of the upkeep during one leadership.
struct Reconciler {
    upkeep: Upkeep,
    leadership: Leadership,
    started: Instant,
    usage: UsageIndex,
    /// Notified when all Pods have been listed once.
    pods_listed: Notify,
    queue: Queue,
    write_limiter: RateLimiter,
    /// Limits reads of Pods that confirm a reported pull failure.
    pod_read_limiter: RateLimiter,
    /// The back-off of each key that failed.
    backoffs: Mutex<HashMap<NamespacedName, Backoff>>,
    collection: collection::Collection,
    repairs: Repairs,
    pod_events: PodEvents,
}

#[derive(Clone, Copy, Debug)]
struct Backoff {
    failures: u32,
    until: Instant,
}

impl Reconciler {
    /// Takes the next step for a pull secret. Returns the delay after which to reconcile it again.
    async fn reconcile(&self, key: NamespacedName) -> Option<Duration> {
        if !self.leadership.still_leads() {
            return None;
        }
        match catch_panic(self.try_reconcile(&key)).await {
            // The failed step has logged the problem already.
            Some(outcome) => outcome.unwrap_or_else(|problem| Some(self.on_error(&key, problem.retry_after))),
            None => {
                let NamespacedName { namespace, name } = &key;
                tracing::error!(
                    namespace = namespace.as_str(),
                    name = name.as_str(),
                    "the upkeep of this pull secret panicked; please report this"
                );
                self.upkeep.metrics.count_upkeep_panic();
                Some(self.on_error(&key, None))
            }
        }
    }

    async fn try_reconcile(&self, key: &NamespacedName) -> Result<Option<Duration>, Problem> {
        let Some(object) = self.upkeep.issuer.pull_secrets().get(key) else {
            return self.reconcile_missing(key).await;
        };
        let Item(Ok(owner)) = &*object else {
            return Ok(None);
        };
        let usage = self.usage.usage_of(key);
        if !matches!(usage, Usage::Unused(_)) {
            self.collection.forget(key);
        }
        if usage == Usage::Used && owner.is_marked_unused() && owner.metadata.deletion_timestamp.is_none() {
            self.upkeep.issuer.writer().mark_used(key, owner).await?;
        }
        let known = Knowledge {
            usage,
            // The key is woken when the Pods have been listed.
            is_pod_list_pending: self.started.elapsed() < POD_LIST_TIMEOUT,
            backoff: self.backoff_left(key),
            is_kept: self.collection.is_kept(key),
        };
        match next_step(owner, known, Timestamp::now()) {
            Step::Ignore => Ok(None),
            Step::Wait(duration) => Ok(Some(duration)),
            Step::Collect {
                unused_for,
                renewal_in,
            } => {
                let next = self.collect(owner, key, unused_for).await?;
                Ok(next.into_iter().chain(renewal_in).min())
            }
            Step::Renew => {
                self.collection.stop_keeping(key);
                self.renew_now(&object, owner, key).await
            }
            Step::Repair(due_in) => {
                let repair_in = self.repair(owner, key).await?.unwrap_or(MAX_REQUEUE);
                Ok(Some(due_in.min(repair_in).min(MAX_REQUEUE)))
            }
        }
    }

    /// Reconciles a key whose `ACRPullSecret` does not exist.
    async fn reconcile_missing(&self, key: &NamespacedName) -> Result<Option<Duration>, Problem> {
        self.usage.forget(key);
        self.collection.forget(key);
        let excluded = self.upkeep.resolver.excluded().contains(&key.namespace);
        if self.usage.usage_of(key) == Usage::Used && !excluded {
            return self.restore(key).await;
        }
        self.usage.forget(key);
        self.clear_backoff(key);
        self.repairs.forget(key);
        Ok(None)
    }

    /// Renews the token, at the rate that the settings allow.
    async fn renew_now(
        &self,
        object: &Arc<WatchedPullSecret>,
        owner: &ACRPullSecret,
        key: &NamespacedName,
    ) -> Result<Option<Duration>, Problem> {
        self.write_limiter.acquire().await;
        if !self.leadership.still_leads() {
            return Ok(None);
        }
        let seen = object.clone();
        let renewed = self.renew(key, owner, |refusal| Cause::Renewal { seen, refusal });
        let outcome = renewed.await.map(drop);
        self.upkeep
            .metrics
            .count_renewal(RenewalOutcome::Renewed, &outcome);
        outcome?;
        self.clear_backoff(key);
        // A fallback: the watch reports the new status, and the key is woken with its new due time.
        Ok(Some(MAX_REQUEUE))
    }

    /// Issues the token again. The cause depends on the registry's refusal of the tokens before this one, if there is
    /// one.
    async fn renew(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        cause: impl FnOnce(Option<Problem>) -> Cause,
    ) -> Result<Renewed, Problem> {
        let Upkeep { resolver, issuer, .. } = &self.upkeep;
        let request = PullSecretRequest::of(&key.namespace, owner)?;
        let outcome = async {
            let plan = match resolver.resolve(&request).await {
                Ok(Resolution { plan, .. }) => plan,
                Err(problem) => {
                    issuer.report(key, owner, &problem).await;
                    return Err(problem);
                }
            };
            let renewed = Renewed {
                inputs_hash: plan.inputs_hash.clone(),
                refusal: self.repairs.refusal(key, &plan.inputs_hash),
            };
            let cause = cause(renewed.refusal.clone());
            issuer.renew(plan.named(&key.name), cause).await?;
            Ok(renewed)
        };
        let outcome = outcome.await;
        outcome.inspect_err(|problem| resolver.warn_on_generator(&request, problem))
    }

    /// The `ACRPullSecret` as the watch last reported it.
    fn cached(&self, key: &NamespacedName) -> Option<ACRPullSecret> {
        let object = self.upkeep.issuer.pull_secrets().get(key)?;
        object.0.as_ref().ok().cloned()
    }

    /// Records a failure. Returns how long to wait before the next attempt.
    fn on_error(&self, key: &NamespacedName, retry_after: Option<Duration>) -> Duration {
        let mut backoffs = self.backoffs.lock();
        let failures = backoffs.get(key).map_or(0, |backoff| backoff.failures);
        let delay = schedule::backoff_delay(failures, retry_after, &key.name);
        let until = Instant::now() + delay;
        let failures = failures.saturating_add(1);
        backoffs.insert(key.clone(), Backoff { failures, until });
        delay
    }

    /// The remaining back-off of this key.
    fn backoff_left(&self, key: &NamespacedName) -> Option<Duration> {
        let backoffs = self.backoffs.lock();
        let left = backoffs.get(key)?.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn clear_backoff(&self, key: &NamespacedName) {
        self.backoffs.lock().remove(key);
    }
}

/// A token that was issued again.
#[derive(Clone, Debug)]
struct Renewed {
    /// The inputs of the token.
    inputs_hash: String,
    /// Why the registry probably refuses the token, as the status reports it.
    refusal: Option<Problem>,
}

/// Returns `None` if the future panics, so that a panic affects one pull secret only. The shared state is safe to use
/// afterwards: each change of it is a step that cannot be left half done.
async fn catch_panic<T>(future: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(future).catch_unwind().await.ok()
}

/// Fuzzing: decodes an Event and evaluates the pull failure that it reports.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_event(data: &[u8]) {
    if let Ok(Item(Ok(event))) = serde_json::from_slice::<Item<pull_failure::Event>>(data)
        && let Some(failure) = pull_failure::PullFailure::from_event(&event, Timestamp::UNIX_EPOCH)
    {
        failure.concerns("acr-pull-contoso-app", Some("contoso.azurecr.io"));
    }
}

/// Fuzzing: computes when a pull secret is due, with arbitrary times in its status.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_pull_secret(object: &ACRPullSecret) {
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        schedule::until_due(object, step::ORPHAN_GRACE, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_affects_one_key_and_not_the_queue() {
        let queue = Queue::default();
        let seen = Mutex::new(Vec::new());
        for name in ["panics", "works"] {
            queue.wake(NamespacedName::new("team-a", name).unwrap());
        }
        let reconcile = |key: NamespacedName| {
            let seen = &seen;
            async move {
                let outcome = catch_panic(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    assert!(key.name != "panics", "the test asked for a panic");
                });
                let outcome = outcome.await;
                seen.lock().push((key.name.to_string(), outcome.is_some()));
                None
            }
        };
        tokio::select! {
            () = queue.run(1, reconcile) => {}
            () = tokio::time::sleep(Duration::from_secs(9)) => {}
        }
        let seen = seen.into_inner();
        assert_eq!(seen, [("panics".to_owned(), false), ("works".to_owned(), true)]);
    }
}
