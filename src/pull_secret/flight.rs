//! Single flight: one issue of a pull secret at a time, however many Pods wait for it.
//!
//! A flight is a task of its own: it outlives the admission that started it, so a short
//! time-out of one Pod does not spoil the wait of the others. It remembers a success
//! for a moment, which bridges the lag of the watch. A refusal is remembered until its
//! inputs change, with back-off, so that failing creations cannot drive Entra.

use super::Order;
use crate::{
    problem::{Class, Problem, Reason},
    transport::{Progress, Stage},
};
use backon::{BackoffBuilder, ExponentialBuilder};
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::{Instant, sleep},
};

/// The watch shows what we wrote well within this; from then on it is the truth.
const REMEMBER_SUCCESS: Duration = Duration::from_secs(5);
/// A refusal is answered again for so long without a try, twice as long after each further one.
const MIN_REFUSAL: Duration = Duration::from_secs(1);
/// A person who has mended something in Azure waits no longer than this.
const MAX_REFUSAL: Duration = Duration::from_secs(30);
/// So long after that the number of refusals still counts.
const REFUSAL_COUNTS: Duration = Duration::from_secs(60);
/// Some 1 KiB each. Beyond it, refusals are not remembered.
const MOST_REFUSALS: usize = 8192;
/// Between two tries against an Azure in trouble, however many Pods arrive: twice as long after each further one.
const MIN_RETRY: Duration = Duration::from_secs(5);
const MAX_FLOOR: Duration = Duration::from_secs(30);
const MAX_RETRY: Duration = Duration::from_secs(300);

type Key = (String, String);

/// A function that can be tried again.
pub trait AsyncTry<A, T>: Send + Sync + 'static {
    /// Tries once.
    fn call(&self, argument: A) -> impl Future<Output = Result<T, Problem>> + Send;
}

impl<A, T, F, R> AsyncTry<A, T> for F
where
    F: Fn(A) -> R + Send + Sync + 'static,
    R: Future<Output = Result<T, Problem>> + Send,
{
    fn call(&self, argument: A) -> impl Future<Output = Result<T, Problem>> + Send {
        self(argument)
    }
}

/// The flights under way, those just landed, and what was refused; clones share them.
#[derive(Clone, Default)]
pub struct Flights(Arc<Mutex<Board>>);

#[derive(Default)]
struct Board {
    flights: HashMap<Key, Flight>,
    refusals: HashMap<Key, Refusal>,
}

struct Flight {
    inputs_hash: String,
    state: watch::Receiver<State>,
    place: Progress,
    retry_now: Arc<Notify>,
    task: AbortHandle,
}

/// A refusal that is not tried again before its time.
struct Refusal {
    inputs_hash: String,
    problem: Problem,
    wait: Duration,
    until: Instant,
}

/// A passenger's view of a flight.
pub struct Passenger {
    state: watch::Receiver<State>,
    place: Progress,
    retry_now: Arc<Notify>,
}

#[derive(Clone, Debug)]
enum State {
    Flying,
    Landed(Result<(), Problem>),
    /// Failed for now; not tried again before this moment.
    Waiting(Problem, Instant),
}

// === impl Flights ===

impl Flights {
    /// Joins the flight of this order, or starts it. `refresh` gives the order anew before
    /// each further try: what it was made from may have changed, or be gone.
    pub fn join<I, R>(&self, order: Arc<Order>, issue: I, refresh: R, keep_trying: bool) -> Passenger
    where
        I: AsyncTry<(Arc<Order>, Progress), ()>,
        R: AsyncTry<(), Arc<Order>>,
    {
        let key = (order.namespace.clone(), order.name.clone());
        let mut board = self.lock();
        if let Some(problem) = board.refusal(&key, &order.inputs_hash) {
            return Passenger::refused(problem);
        }
        let mut before = None;
        if let Some(flight) = board.flights.get(&key) {
            if flight.inputs_hash == order.inputs_hash && !flight.task.is_finished() {
                return flight.passenger();
            }
            // What the token depends on has changed: that flight makes no further try.
            before = Some((flight.state.clone(), flight.task.clone()));
        }
        let (sender, state) = watch::channel(State::Flying);
        let retry_now = Arc::new(Notify::new());
        let place = Progress::default();
        let flight = Flight {
            inputs_hash: order.inputs_hash.clone(),
            state,
            place: place.clone(),
            retry_now: retry_now.clone(),
            task: tokio::spawn(self.clone().flight(FlightPlan {
                key: key.clone(),
                before,
                order,
                issue,
                refresh,
                keep_trying,
                state: sender,
                place,
                retry_now,
            }))
            .abort_handle(),
        };
        let passenger = flight.passenger();
        board.flights.insert(key, flight);
        passenger
    }

    /// Whether a flight for other inputs is under way or has just landed: what the watch
    /// shows of this pull secret may be outdated.
    pub fn other_inputs(&self, order: &Order) -> bool {
        let board = self.lock();
        // As nearly always: nobody waits for a token.
        if board.flights.is_empty() {
            return false;
        }
        let key = (order.namespace.clone(), order.name.clone());
        let flight = board.flights.get(&key);
        flight.is_some_and(|f| f.inputs_hash != order.inputs_hash)
    }

    /// Whether the last try for these inputs was refused, not long ago.
    pub fn was_refused(&self, order: &Order) -> bool {
        let board = self.lock();
        if board.refusals.is_empty() {
            return false;
        }
        let key = (order.namespace.clone(), order.name.clone());
        let refusal = board.refusals.get(&key);
        refusal.is_some_and(|refusal| {
            refusal.inputs_hash == order.inputs_hash && Instant::now() < refusal.until + REFUSAL_COUNTS
        })
    }

    /// The object is gone: forgets what was done for it, and tries no further. A try under way
    /// goes on for those who wait for it; nobody else joins it, for it may have written too early.
    /// A refusal is no work of the object's: it stays.
    pub fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let flight = self.lock().flights.remove(&key);
        if let Some(flight) = flight.filter(|f| !f.is_flying()) {
            flight.task.abort();
        }
    }

    /// Forgets that a flight of this order succeeded: whoever joins next starts another one.
    pub fn forget_success(&self, order: &Order) {
        let key = (order.namespace.clone(), order.name.clone());
        let mut board = self.lock();
        if let Entry::Occupied(entry) = board.flights.entry(key)
            && entry.get().has_succeeded()
        {
            entry.remove().task.abort();
        }
    }

    /// Whether the flight with this bell is still the one of its pull secret.
    fn holds(&self, key: &Key, bell: &Arc<Notify>) -> bool {
        let board = self.lock();
        let flight = board.flights.get(key);
        flight.is_some_and(|f| Arc::ptr_eq(&f.retry_now, bell))
    }

    async fn flight<I, R>(self, plan: FlightPlan<I, R>)
    where
        I: AsyncTry<(Arc<Order>, Progress), ()>,
        R: AsyncTry<(), Arc<Order>>,
    {
        let (key, bell) = (plan.key.clone(), plan.retry_now.clone());
        if let Some((mut state, task)) = plan.before {
            plan.place.set(Stage::Predecessor);
            // A write of its own under way could otherwise arrive after ours.
            let _ = state.wait_for(|s| !matches!(s, State::Flying)).await;
            task.abort();
            plan.place.set(Stage::Kubernetes);
        }
        let FlightPlan {
            order,
            issue,
            refresh,
            state,
            place,
            ..
        } = plan;
        let first_hash = order.inputs_hash.clone();
        let keep_trying = || plan.keep_trying && self.holds(&key, &bell);
        let outcome = fly(order, issue, refresh, keep_trying, &state, &place, &bell).await;
        match &outcome {
            Ok(()) => drop(self.lock().refusals.remove(&key)),
            Err(problem) => self.lock().refused(&key, &bell, first_hash, problem),
        }
        let succeeded = outcome.is_ok();
        state.send_replace(State::Landed(outcome));
        if succeeded {
            sleep(REMEMBER_SUCCESS).await;
        }
        // Another flight may have taken the place of this one meanwhile.
        if let Entry::Occupied(entry) = self.lock().flights.entry(key)
            && Arc::ptr_eq(&entry.get().retry_now, &bell)
        {
            entry.remove();
        }
    }

    /// Never held across an await; a panic elsewhere leaves the maps whole.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that a flight needs.
struct FlightPlan<I, R> {
    key: Key,
    /// The flight whose place it takes.
    before: Option<(watch::Receiver<State>, AbortHandle)>,
    order: Arc<Order>,
    issue: I,
    refresh: R,
    keep_trying: bool,
    state: watch::Sender<State>,
    place: Progress,
    retry_now: Arc<Notify>,
}

async fn fly(
    mut order: Arc<Order>,
    issue: impl AsyncTry<(Arc<Order>, Progress), ()>,
    refresh: impl AsyncTry<(), Arc<Order>>,
    keep_trying: impl Fn() -> bool,
    state: &watch::Sender<State>,
    place: &Progress,
    retry_now: &Notify,
) -> Result<(), Problem> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(MIN_RETRY)
        .with_max_delay(MAX_RETRY)
        .with_jitter()
        .without_max_times();
    let mut shortest = MIN_RETRY;
    for delay in backoff.build() {
        // A try is large, and a flight waits most of its time: it is held no longer than it lasts.
        let outcome = Box::pin(issue.call((order.clone(), place.clone()))).await;
        let floor = match outcome {
            Err(problem) if keep_trying() && problem.is_transient() => {
                let asked = problem.retry_after.unwrap_or_default();
                let floor = asked.clamp(shortest, MAX_RETRY);
                state.send_replace(State::Waiting(problem, Instant::now() + floor));
                floor
            }
            outcome => return outcome,
        };
        shortest = (shortest * 2).min(MAX_FLOOR);
        sleep(floor).await;
        tokio::select! {
            () = sleep(delay.saturating_sub(floor)) => {}
            () = retry_now.notified() => {}
        }
        state.send_replace(State::Flying);
        match Box::pin(refresh.call(())).await {
            Ok(anew) => order = anew,
            // The API server's silence says nothing about the order.
            Err(problem) if problem.is_transient() => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(interrupted())
}

// === impl Board ===

impl Board {
    /// What was refused for these inputs, and is not tried again yet.
    fn refusal(&self, key: &Key, inputs_hash: &str) -> Option<Problem> {
        if self.refusals.is_empty() {
            return None;
        }
        let refusal = self.refusals.get(key)?;
        let holds = refusal.inputs_hash == inputs_hash && Instant::now() < refusal.until;
        holds.then(|| refusal.problem.clone())
    }

    /// Remembers what a flight ended with, unless another one has taken its place.
    fn refused(&mut self, key: &Key, bell: &Arc<Notify>, inputs_hash: String, problem: &Problem) {
        let flight = self.flights.get(key);
        if flight.is_some_and(|flight| !Arc::ptr_eq(&flight.retry_now, bell)) {
            return;
        }
        let now = Instant::now();
        let before = self
            .refusals
            .get(key)
            .filter(|before| before.inputs_hash == inputs_hash && now < before.until + REFUSAL_COUNTS);
        let wait = match (problem.reason.class(), before) {
            // Our own API server's trouble is nobody's fault, and costs nobody outside.
            (Class::ApiServer, _) | (_, None) => MIN_REFUSAL,
            (_, Some(before)) => (before.wait * 2).min(MAX_REFUSAL),
        };
        if self.refusals.len() >= MOST_REFUSALS {
            self.refusals
                .retain(|_, refusal| now < refusal.until + REFUSAL_COUNTS);
        }
        if self.refusals.len() >= MOST_REFUSALS {
            self.refusals.retain(|_, refusal| now < refusal.until);
        }
        if self.refusals.len() < MOST_REFUSALS {
            let refusal = Refusal {
                inputs_hash,
                problem: problem.clone(),
                wait,
                until: now + wait,
            };
            self.refusals.insert(key.clone(), refusal);
        }
    }
}

// === impl Flight ===

impl Flight {
    fn passenger(&self) -> Passenger {
        Passenger {
            state: self.state.clone(),
            place: self.place.clone(),
            retry_now: self.retry_now.clone(),
        }
    }

    fn has_succeeded(&self) -> bool {
        matches!(*self.state.borrow(), State::Landed(Ok(())))
    }

    fn is_flying(&self) -> bool {
        matches!(*self.state.borrow(), State::Flying)
    }
}

// === impl Passenger ===

impl Passenger {
    /// One that is answered by what was refused before.
    fn refused(problem: Problem) -> Self {
        let (_, state) = watch::channel(State::Landed(Err(problem)));
        Self {
            state,
            place: Progress::default(),
            retry_now: Arc::default(),
        }
    }

    /// Where the flight is.
    pub fn place(&self) -> Progress {
        self.place.clone()
    }

    /// The outcome of the flight, or of its last try when it waits for the next one.
    pub async fn outcome(mut self) -> Result<(), Problem> {
        let overdue = match &*self.state.borrow_and_update() {
            State::Waiting(_, earliest) => *earliest <= Instant::now(),
            _ => false,
        };
        if overdue {
            self.retry_now.notify_one();
            if self.state.changed().await.is_err() {
                return Err(interrupted());
            }
        }
        let settled = self.state.wait_for(|s| !matches!(s, State::Flying)).await;
        match settled.as_deref() {
            Ok(State::Landed(outcome)) => outcome.clone(),
            Ok(State::Waiting(problem, _)) => Err(problem.clone()),
            Ok(State::Flying) | Err(_) => Err(interrupted()),
        }
    }
}

fn interrupted() -> Problem {
    Problem::new(
        Reason::ApiServerUnavailable,
        "getting the token was interrupted, because its ACRPullSecret was deleted or its generator changed; try again",
    )
}

#[cfg(test)]
mod tests;
