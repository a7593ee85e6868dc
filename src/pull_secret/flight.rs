//! Single flight: one job for a key at a time, however many callers wait for its result.
//!
//! A flight is a task of its own. It outlives the caller that started it, so a caller with a short deadline does not
//! affect the others. A success is remembered for a moment, which bridges the lag of a watch. A refusal is
//! remembered with back-off until the version of the job changes, so that failing callers cannot drive upstream calls.

mod retry;
mod waiter;

pub use retry::Retries;
pub use waiter::Waiter;

use crate::{
    problem::{Class, Problem, Reason},
    transport::{Progress, Stage},
};
use parking_lot::Mutex;
use retry::{Delay, Schedule};
use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep},
};
use waiter::State;

/// A watch shows what a job wrote well within this time; afterwards the watch is right.
const SUCCESS_TTL: Duration = Duration::from_secs(5);
/// A refusal is repeated without a new attempt for this time, and for twice as long after each further refusal.
const MIN_REFUSAL_TTL: Duration = Duration::from_secs(1);
/// A person who has corrected something in Azure waits no longer than this.
const MAX_REFUSAL_TTL: Duration = Duration::from_secs(30);
/// An expired refusal still counts for the back-off of the next one for this time.
const REFUSAL_MEMORY: Duration = Duration::from_secs(60);
/// A refusal takes about 1 KiB. Refusals beyond this number are not remembered.
const MAX_REFUSALS: usize = 8192;
/// What a flight does.
pub trait Job: Send + Sync + 'static {
    /// Attempts the job once. `progress` records what the attempt waits for.
    fn attempt(&self, progress: Progress) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Prepares a further attempt: what the job was made from may have changed, or be gone.
    fn refresh(&mut self) -> impl Future<Output = Result<(), Problem>> + Send;

    /// Which further attempts follow a transient failure.
    fn retries(&self) -> Retries;
}

/// The flights under way, the successes of the last seconds, and the refusals. Clones share them.
///
/// `V` is the version of a job: a flight serves only callers that want the same version of a key.
pub struct Flights<K, V>(Arc<Mutex<Board<K, V>>>);

impl<K, V> Clone for Flights<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Board {
            flights: HashMap::new(),
            refusals: HashMap::new(),
        })))
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + PartialEq + Send + Sync + 'static,
{
    /// Joins the flight for this version of the key, or starts it.
    pub fn join(&self, key: K, version: V, job: impl Job) -> Waiter {
        let mut board = self.0.lock();
        if let Some(problem) = board.refusal(&key, &version) {
            return Waiter::refused(problem);
        }
        let mut predecessor = None;
        if let Some(flight) = board.flights.get(&key) {
            if flight.version == version && !flight.task.is_finished() {
                return flight.waiter();
            }
            // The flight is for another version: it makes no further attempt.
            predecessor = Some((flight.state.clone(), flight.task.clone()));
        }
        let (sender, state) = watch::channel(State::Attempting(None));
        let retry_now = Arc::new(Notify::new());
        let progress = Progress::default();
        let controls = Controls {
            key: key.clone(),
            version: version.clone(),
            state: sender,
            progress: progress.clone(),
            retry_now: retry_now.clone(),
        };
        let task = tokio::spawn(self.clone().fly(predecessor, job, controls));
        let flight = Flight {
            version,
            state,
            progress,
            retry_now,
            task: task.abort_handle(),
        };
        let waiter = flight.waiter();
        board.flights.insert(key, flight);
        waiter
    }

    /// Whether a flight for another version is under way or has just finished: the watch may still show the result of
    /// the version before.
    pub fn has_other_version(&self, key: &K, version: &V) -> bool {
        let board = self.0.lock();
        let flight = board.flights.get(key);
        flight.is_some_and(|flight| flight.version != *version)
    }

    /// Whether the last attempt for this version was refused, not long ago.
    pub fn was_refused(&self, key: &K, version: &V) -> bool {
        let board = self.0.lock();
        let refusal = board.refusals.get(key);
        refusal.is_some_and(|refusal| {
            refusal.version == *version && Instant::now() < refusal.expires + REFUSAL_MEMORY
        })
    }

    /// Forgets the flight of a key whose object was deleted. An attempt under way continues for its waiters, and nobody
    /// else joins it, because it may have written before the deletion. Refusals stay: they do not depend on the object.
    pub fn forget(&self, key: &K) {
        let flight = self.0.lock().flights.remove(key);
        if let Some(flight) = flight.filter(|flight| !flight.is_attempting()) {
            flight.task.abort();
        }
    }

    /// Forgets a success: the next caller starts another flight.
    pub fn forget_success(&self, key: &K) {
        let mut board = self.0.lock();
        if let Entry::Occupied(entry) = board.flights.entry(key.clone())
            && entry.get().has_succeeded()
        {
            entry.remove().task.abort();
        }
    }

    async fn fly(self, predecessor: Option<Predecessor>, job: impl Job, controls: Controls<K, V>) {
        if let Some((mut state, task)) = predecessor {
            controls.progress.set(Stage::Predecessor);
            // Otherwise a write of the predecessor could arrive after the writes of this flight.
            let _ = state.wait_for(|state| !state.is_attempting()).await;
            task.abort();
            controls.progress.set(Stage::Kubernetes);
        }
        let outcome = self.attempt_until_final(job, &controls).await;
        let Controls {
            key,
            version,
            state,
            retry_now,
            ..
        } = controls;
        match &outcome {
            Ok(()) => drop(self.0.lock().refusals.remove(&key)),
            Err(problem) => self.0.lock().remember_refusal(&key, &retry_now, version, problem),
        }
        let succeeded = outcome.is_ok();
        state.send_replace(State::Finished(outcome));
        if succeeded {
            sleep(SUCCESS_TTL).await;
        }
        // Another flight may have replaced this one meanwhile.
        if let Entry::Occupied(entry) = self.0.lock().flights.entry(key)
            && Arc::ptr_eq(&entry.get().retry_now, &retry_now)
        {
            entry.remove();
        }
    }

    async fn attempt_until_final(&self, mut job: impl Job, controls: &Controls<K, V>) -> Result<(), Problem> {
        let mut schedule = Schedule::new();
        loop {
            // Boxed because an attempt is large and a flight spends most of its time between attempts.
            let Err(problem) = Box::pin(job.attempt(controls.progress.clone())).await else {
                return Ok(());
            };
            let delay = schedule.next(job.retries(), &problem);
            let Some(delay) = delay.filter(|_| self.is_current(controls)) else {
                return Err(problem);
            };
            controls.wait(delay, &problem).await;
            controls.state.send_replace(State::Attempting(Some(problem)));
            match Box::pin(job.refresh()).await {
                Ok(()) => {}
                // A failure to refresh is not a reason to stop: the attempt uses what is known.
                Err(problem) if problem.is_transient() => {}
                Err(problem) => return Err(problem),
            }
        }
    }

    /// Whether this flight is still the flight of its key.
    fn is_current(&self, controls: &Controls<K, V>) -> bool {
        let board = self.0.lock();
        let flight = board.flights.get(&controls.key);
        flight.is_some_and(|flight| Arc::ptr_eq(&flight.retry_now, &controls.retry_now))
    }
}

struct Board<K, V> {
    flights: HashMap<K, Flight<V>>,
    refusals: HashMap<K, Refusal<V>>,
}

impl<K, V> Board<K, V>
where
    K: Clone + Eq + Hash,
    V: PartialEq,
{
    /// The refusal of this version, unless it has expired.
    fn refusal(&self, key: &K, version: &V) -> Option<Problem> {
        let refusal = self.refusals.get(key)?;
        let holds = refusal.version == *version && Instant::now() < refusal.expires;
        holds.then(|| refusal.problem.clone())
    }

    /// Remembers the problem of a flight, unless another flight has replaced it.
    fn remember_refusal(&mut self, key: &K, flight: &Arc<Notify>, version: V, problem: &Problem) {
        let current = self.flights.get(key);
        if current.is_some_and(|current| !Arc::ptr_eq(&current.retry_now, flight)) {
            return;
        }
        let now = Instant::now();
        let before = self
            .refusals
            .get(key)
            .filter(|before| before.version == version && now < before.expires + REFUSAL_MEMORY);
        let ttl = match (problem.reason.class(), before) {
            // A failure of the Kubernetes API server is not the caller's fault, and its retry costs nothing outside.
            (Class::ApiServer, _) | (_, None) => MIN_REFUSAL_TTL,
            (_, Some(before)) => (before.ttl * 2).min(MAX_REFUSAL_TTL),
        };
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals
                .retain(|_, refusal| now < refusal.expires + REFUSAL_MEMORY);
        }
        if self.refusals.len() >= MAX_REFUSALS {
            self.refusals.retain(|_, refusal| now < refusal.expires);
        }
        if self.refusals.len() < MAX_REFUSALS {
            let refusal = Refusal {
                version,
                problem: problem.clone(),
                ttl,
                expires: now + ttl,
            };
            self.refusals.insert(key.clone(), refusal);
        }
    }
}

struct Flight<V> {
    version: V,
    state: watch::Receiver<State>,
    progress: Progress,
    /// Also identifies the flight.
    retry_now: Arc<Notify>,
    task: AbortHandle,
}

impl<V> Flight<V> {
    fn waiter(&self) -> Waiter {
        Waiter {
            state: self.state.clone(),
            progress: self.progress.clone(),
            retry_now: self.retry_now.clone(),
        }
    }

    fn has_succeeded(&self) -> bool {
        matches!(*self.state.borrow(), State::Finished(Ok(())))
    }

    fn is_attempting(&self) -> bool {
        self.state.borrow().is_attempting()
    }
}

/// A refusal that is repeated until it expires.
struct Refusal<V> {
    version: V,
    problem: Problem,
    ttl: Duration,
    expires: Instant,
}

/// The flight that a new flight replaces.
type Predecessor = (watch::Receiver<State>, AbortHandle);

/// What the task of a flight reports to, and is known by.
struct Controls<K, V> {
    key: K,
    version: V,
    state: watch::Sender<State>,
    progress: Progress,
    retry_now: Arc<Notify>,
}

impl<K, V> Controls<K, V> {
    /// Waits for the next attempt after this failure.
    async fn wait(&self, delay: Delay, problem: &Problem) {
        match delay {
            Delay::Quick(delay) => {
                self.state.send_replace(State::RetryingSoon(problem.clone()));
                sleep(delay).await;
            }
            Delay::Slow { earliest, latest } => {
                let next = Instant::now() + earliest;
                self.state.send_replace(State::BackingOff(problem.clone(), next));
                sleep(earliest).await;
                tokio::select! {
                    () = sleep(latest - earliest) => {}
                    () = self.retry_now.notified() => {}
                }
            }
        }
    }
}

fn interrupted() -> Problem {
    Problem::new(
        Reason::ApiServerUnavailable,
        "the token request was interrupted, because its ACRPullSecret was deleted or its generator changed: try again",
    )
}

#[cfg(test)]
mod tests;
