//! Life after admission, the leader's work: pull secrets that live Pods name are renewed and repaired,
//! and those that none names for a while are collected.

mod collection;
mod complaint;
mod life;
mod pace;
mod queue;
mod repair;
mod schedule;
mod usage;
mod watches;

use crate::{
    admission::Admission,
    cluster::Cluster,
    leader::Leadership,
    problem::Problem,
    pull_secret::{ACRPullSecret, Catalog, Cause, Guarded, Issuer, Resolution, Wish},
    telemetry::{Metrics, Renewal},
    watch::Item,
};
use futures::FutureExt;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use pace::Pace;
use queue::Queue;
use repair::Repairs;
use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use usage::{Usage, Use};

/// How the leader goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long no Pod names a pull secret before its end is announced.
    pub unused_grace: Duration,
    /// How long after that it is deleted.
    pub unused_notice: Duration,
    /// The most pull secrets that are renewed at the same time.
    pub concurrency: u16,
    /// The most that are renewed in a second.
    pub rate: u32,
}

/// All that the work needs, made once.
#[derive(Clone)]
pub struct Upkeep {
    /// Where Pods are.
    pub cluster: Cluster,
    /// Resolves what Pods asked for.
    pub catalog: Arc<Catalog>,
    /// Issues.
    pub issuer: Issuer,
    /// Knows how Pods ask.
    pub admission: Admission,
    /// How to go about it.
    pub settings: Settings,
    /// Counts.
    pub metrics: Metrics,
}

/// One term's work.
struct Work {
    upkeep: Upkeep,
    term: Leadership,
    began: Instant,
    usage: Usage,
    /// Rings when all Pods have been listed once.
    pods_listed: Notify,
    queue: Queue,
    /// Of what is written.
    pace: Pace,
    /// Of the Pods that are read because somebody complained.
    looks: Pace,
    /// What failed is left alone until then.
    troubles: Mutex<HashMap<Key, Trouble>>,
    collection: collection::Collection,
    repairs: Repairs,
}

/// Namespace and name of a pull secret, or of a Pod.
type Key = (String, String);

#[derive(Clone, Copy, Debug)]
struct Trouble {
    failures: u32,
    until: Instant,
}

/// A Pod does not wait for a replica that has died in the middle of its admission longer than this.
const ADOPT: Duration = Duration::from_secs(15);
/// So long a new leader waits for the list of Pods, before it renews what may be in use.
const PATIENCE: Duration = Duration::from_secs(20);
/// Nothing is planned further ahead: clocks may be set.
const FAR: Duration = Duration::from_secs(600);

/// An Event, and all that is asked of what it claims.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_event(data: &[u8]) {
    if let Ok(Item(Ok(event))) = serde_json::from_slice::<Item<complaint::Event>>(data)
        && let Some(complaint) = complaint::Complaint::of(&event, Timestamp::UNIX_EPOCH)
    {
        complaint.is_about("acr-pull-contoso-app", Some("contoso.azurecr.io"));
    }
}

/// When an object is due, whatever its times are.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_pull_secret(object: &ACRPullSecret) {
    for now in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        schedule::until_due(object, ADOPT, now);
    }
}

// === impl Upkeep ===

impl Upkeep {
    /// Whether this replica could do the work: it sees the pull secrets that exist. A replica of which that is not true does
    /// not lead.
    pub fn is_fit(&self) -> bool {
        self.issuer.sees()
    }

    /// Works until it is dropped, which is when the term ends.
    pub async fn work(self, term: Leadership) {
        let rate = self.settings.rate;
        let work = Work {
            pace: Pace::new(rate),
            looks: Pace::new(rate),
            began: Instant::now(),
            usage: Usage::default(),
            pods_listed: Notify::new(),
            queue: Queue::default(),
            term,
            troubles: Mutex::default(),
            collection: collection::Collection::default(),
            repairs: Repairs::default(),
            upkeep: self,
        };
        let slots = work.upkeep.settings.concurrency.into();
        tokio::join!(
            watches::changes(&work),
            watches::pods(&work),
            watches::failed_pulls(&work),
            life::measure(&work),
            work.queue.run(slots, |key| Box::pin(work.attend(key))),
        );
    }
}

// === impl Work ===

impl Work {
    /// Does what there is to do for a pull secret; says after how long it is to be looked at again.
    async fn attend(&self, key: Key) -> Option<Duration> {
        if !self.term.still_leads() {
            return None;
        }
        match caught(self.reconcile(&key)).await {
            // What failed has been told where it happened.
            Some(outcome) => outcome.unwrap_or_else(|problem| Some(self.after(&key, problem.retry_after))),
            None => {
                let (namespace, name) = &key;
                tracing::error!(
                    namespace,
                    name,
                    "the upkeep of this pull secret panicked; please report this"
                );
                self.upkeep.metrics.upkeep_panicked();
                Some(self.after(&key, None))
            }
        }
    }

    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Problem> {
        let Some(object) = self.upkeep.issuer.store().get(&reference(key)) else {
            return self.reconcile_missing(key).await;
        };
        let Item(Ok(owner)) = &*object else {
            return Ok(None);
        };
        if owner.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        match self.usage.of(key) {
            Use::Unused(for_long) => self.collect(owner, key, for_long).await,
            // Woken when the Pods are listed.
            Use::Unknown if self.began.elapsed() < PATIENCE => Ok(Some(PATIENCE)),
            // Where Pods are not known, a renewal too many harms nobody.
            usage @ (Use::Used | Use::Unknown) => self.keep(&object, owner, key, usage).await,
        }
    }

    /// The `ACRPullSecret` is gone, or was never there.
    async fn reconcile_missing(&self, key: &Key) -> Result<Option<Duration>, Problem> {
        self.usage.forget(key);
        self.collection.forget(key);
        let excluded = self.upkeep.catalog.excluded().contains(&key.0);
        if self.usage.of(key) == Use::Used && !excluded {
            return self.restore(key).await;
        }
        self.usage.forget(key);
        self.recovered(key);
        self.repairs.forget(key);
        Ok(None)
    }

    /// Repairs a pull secret in use where that is wanted, and renews it when it is time.
    async fn keep(
        &self,
        object: &Arc<Guarded>,
        owner: &ACRPullSecret,
        key: &Key,
        usage: Use,
    ) -> Result<Option<Duration>, Problem> {
        if owner.is_marked_unused() && usage == Use::Used {
            self.upkeep.issuer.writer().mark_used(owner).await?;
        }
        self.collection.forget(key);
        if let Some(wait) = self.trouble(key) {
            return Ok(Some(wait));
        }
        let wait = schedule::until_due(owner, ADOPT, Timestamp::now());
        if !wait.is_zero() {
            let again = self.repair(owner, key).await?.unwrap_or(FAR);
            return Ok(Some(wait.min(again).min(FAR)));
        }
        self.pace.turn().await;
        if !self.term.still_leads() {
            return Ok(None);
        }
        let outcome = self.renew(owner, Cause::Renewal(object.clone())).await;
        self.upkeep.metrics.renewal(Renewal::Renewed, &outcome);
        outcome?;
        self.recovered(key);
        // The watch shows what was written, and wakes it with its new time; this is for when it does not.
        Ok(Some(FAR))
    }

    async fn renew(&self, owner: &ACRPullSecret, cause: Cause) -> Result<(), Problem> {
        let Upkeep { catalog, issuer, .. } = &self.upkeep;
        let wish = Wish::of(owner)?;
        let outcome = async {
            let mut order = match catalog.resolve(&wish).await {
                Ok(Resolution { order, .. }) => order,
                Err(problem) => {
                    issuer.report(owner, &problem).await;
                    return Err(problem);
                }
            };
            // Its Pods name it as it is called, whatever the generator would have new ones call it.
            let name = owner.metadata.name.as_deref().unwrap_or_default();
            if order.name != name {
                Arc::make_mut(&mut order).rename(name);
            }
            issuer.renew(order, cause).await
        };
        let outcome = outcome.await;
        outcome.inspect_err(|problem| catalog.blame(&wish, problem))
    }

    /// This pull secret, as it is known.
    fn known(&self, key: &Key) -> Option<ACRPullSecret> {
        let object = self.upkeep.issuer.store().get(&reference(key))?;
        object.0.as_ref().ok().cloned()
    }

    /// How long to wait after a failure.
    fn after(&self, key: &Key, asked: Option<Duration>) -> Duration {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = troubles.get(key).map_or(0, |t| t.failures);
        let wait = schedule::back_off(failures, asked, &key.1);
        let until = Instant::now() + wait;
        let failures = failures.saturating_add(1);
        troubles.insert(key.clone(), Trouble { failures, until });
        wait
    }

    fn trouble(&self, key: &Key) -> Option<Duration> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let left = troubles.get(key)?.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn recovered(&self, key: &Key) {
        self.troubles
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// Nothing where the future panics: a panic is the trouble of one pull secret, not of all. The state that they share is only
/// changed in steps that leave it whole.
async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(future).catch_unwind().await.ok()
}

fn reference((namespace, name): &Key) -> ObjectRef<Guarded> {
    ObjectRef::new(name).within(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_ends_one_future_and_not_the_queue() {
        let (queue, seen) = (Queue::default(), Mutex::new(Vec::new()));
        for name in ["panics", "works"] {
            queue.wake(("team-a".to_owned(), name.to_owned()));
        }
        let attend = |key: Key| {
            let seen = &seen;
            async move {
                let outcome = caught(async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    assert!(key.1 != "panics", "as asked");
                });
                let outcome = outcome.await;
                seen.lock().unwrap().push((key.1, outcome.is_some()));
                None
            }
        };
        tokio::select! {
            () = queue.run(1, attend) => {}
            () = tokio::time::sleep(Duration::from_secs(9)) => {}
        }
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen, [("panics".to_owned(), false), ("works".to_owned(), true)]);
    }
}
