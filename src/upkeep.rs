//! Life after admission, the leader's work: pull secrets that live Pods name are renewed and repaired,
//! and those that none names for a while are collected.

mod collection;
mod pace;
mod repair;
mod schedule;
mod usage;
mod watches;

use crate::{
    admission::Admission,
    cluster::Cluster,
    leader::Term,
    problem::Problem,
    pull_secret::{ACRPullSecret, Catalog, Cause, Guarded, Issuer, Resolution, Wish},
    telemetry::{Metrics, Renewal},
    watch::Item,
};
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use jiff::Timestamp;
use kube::runtime::{self, controller::Action, reflector::ObjectRef};
use pace::Pace;
use repair::Repairs;
use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::broadcast::error::RecvError, time::Instant};
use usage::Usage;

/// How the leader goes about it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long no Pod names a pull secret before it is deleted.
    pub unused_grace: Duration,
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
    term: Term,
    usage: Usage,
    pace: Pace,
    /// What failed is left alone until then.
    troubles: Mutex<HashMap<Key, Trouble>>,
    collection: collection::Marks,
    repairs: Repairs,
    jobs: UnboundedSender<repair::Job>,
}

/// Namespace and name of a pull secret, or of a Pod.
type Key = (String, String);

#[derive(Clone, Copy, Debug)]
struct Trouble {
    failures: u32,
    until: Instant,
}

/// A problem as kube's runtime wants errors.
#[derive(Debug)]
struct Failed(Problem);

/// A Pod does not wait for a replica that has died in the middle of its admission longer than this.
const ADOPT: Duration = Duration::from_secs(15);
/// Nothing is planned further ahead: clocks may be set.
const FAR: Duration = Duration::from_secs(600);
/// The shortest wait for a moment that is near, or for the watch to show what was done.
const SOON: Duration = Duration::from_secs(1);

// === impl Upkeep ===

impl Upkeep {
    /// Works until it is dropped, which is when the term ends.
    pub async fn work(self, term: Term) {
        // What is not known yet is not missing.
        self.cluster.readiness.reached().await;
        let (jobs, taken) = unbounded();
        let work = Arc::new(Work {
            pace: Pace::new(self.settings.rate),
            usage: Usage::default(),
            term,
            troubles: Mutex::default(),
            collection: collection::Marks::default(),
            repairs: Repairs::default(),
            jobs,
            upkeep: self,
        });
        let (wake, woken) = unbounded();
        let pods = watches::pods(work.clone(), wake.clone());
        let pulls = watches::failed_pulls(work.clone());
        let changes = watches::changes(work.clone(), wake);
        let repairs = repair::run(work.clone(), taken);
        tokio::join!(pods, pulls, changes, repairs, run(work, woken));
    }
}

/// Reconciles each pull secret that is woken, one at a time each, and those whose time has come.
async fn run(work: Arc<Work>, woken: UnboundedReceiver<ObjectRef<Guarded>>) {
    let store = work.upkeep.issuer.store();
    let config = runtime::controller::Config::default().concurrency(work.upkeep.settings.concurrency);
    let queue = woken.map(Ok::<_, Infallible>);
    let reconcile =
        |object: Arc<Guarded>, work: Arc<Work>| Box::pin(async move { work.reconcile(object).await });
    let after = |object: Arc<Guarded>, failed: &Failed, work: Arc<Work>| work.after(&object, &failed.0);
    runtime::applier(reconcile, after, work, store, queue, config)
        // What failed has been told where it happened; an object that is gone needs nothing.
        .for_each(|_| std::future::ready(()))
        .await;
}

// === impl Work ===

impl Work {
    async fn reconcile(&self, object: Arc<Guarded>) -> Result<Action, Failed> {
        let Item(Ok(owner)) = &*object else {
            return Ok(Action::await_change());
        };
        if !self.term.still_leads() || owner.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let key = key(&object);
        match self.usage.of(&key) {
            // Woken when it is known.
            usage::Use::Unknown => Ok(Action::await_change()),
            usage::Use::Unused(for_long) => self.collect(owner, &key, for_long).await.map_err(Failed),
            usage::Use::Used => self.keep(&object, owner, &key).await.map_err(Failed),
        }
    }

    /// Renews a pull secret in use when it is time.
    async fn keep(&self, object: &Arc<Guarded>, owner: &ACRPullSecret, key: &Key) -> Result<Action, Problem> {
        if owner.is_marked_unused() {
            self.upkeep.issuer.writer().mark_used(owner).await?;
        }
        if let Some(wait) = self.trouble(key) {
            return Ok(Action::requeue(wait));
        }
        let wait = schedule::until_due(owner, ADOPT, Timestamp::now());
        if !wait.is_zero() {
            return Ok(Action::requeue(wait.min(FAR)));
        }
        self.pace.turn().await;
        if !self.term.still_leads() {
            return Ok(Action::await_change());
        }
        let outcome = self.renew(object, owner).await;
        self.upkeep.metrics.renewal(Renewal::Renewed, &outcome);
        outcome?;
        self.recovered(key);
        // The watch shows what was written, and wakes it with its new time; this is for when it does not.
        Ok(Action::requeue(FAR))
    }

    async fn renew(&self, object: &Arc<Guarded>, owner: &ACRPullSecret) -> Result<(), Problem> {
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
            issuer.renew(order, Cause::Renewal(object.clone())).await
        };
        let outcome = outcome.await;
        outcome.inspect_err(|problem| catalog.blame(&wish, problem))
    }

    /// When to try again.
    fn after(&self, object: &Guarded, problem: &Problem) -> Action {
        let key = key(object);
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = troubles.get(&key).map_or(0, |t| t.failures);
        let wait = schedule::back_off(failures, problem.retry_after, &key.1);
        let until = Instant::now() + wait;
        troubles.insert(
            key,
            Trouble {
                failures: failures + 1,
                until,
            },
        );
        Action::requeue(wait)
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

    /// The pull secret is gone: nothing of it is remembered.
    fn forget(&self, key: &Key) {
        self.recovered(key);
        self.usage.forget(key);
        self.collection.forget(key);
        self.repairs.forget(key);
    }
}

fn key(object: &Guarded) -> Key {
    use kube::ResourceExt;
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {}
