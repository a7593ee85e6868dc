//! Single flight: one issue of a pull secret at a time, however many Pods wait for it.
//!
//! A flight is a task of its own: it outlives the admission that started it, so a short
//! time-out of one Pod does not spoil the wait of the others. It remembers its outcome
//! for a moment, which bridges the lag of the watch after a success and keeps a burst
//! of Pods from repeating a refusal.

use super::Order;
use crate::problem::{Problem, Reason};
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
/// Long enough for a burst, short enough for a person who has just mended something.
const REMEMBER_REFUSAL: Duration = Duration::from_secs(1);
/// Between two tries against an Azure in trouble, however many Pods arrive.
const MIN_RETRY: Duration = Duration::from_secs(5);
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

/// The flights under way, and those just landed.
#[derive(Clone, Default)]
pub struct Flights(Arc<Mutex<HashMap<Key, Flight>>>);

struct Flight {
    inputs_hash: String,
    state: watch::Receiver<State>,
    retry_now: Arc<Notify>,
    task: AbortHandle,
}

/// A passenger's view of a flight.
pub struct Passenger {
    state: watch::Receiver<State>,
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
        I: AsyncTry<Arc<Order>, ()>,
        R: AsyncTry<(), Arc<Order>>,
    {
        let key = (order.namespace.clone(), order.name.clone());
        let mut flights = self.lock();
        let mut before = None;
        if let Some(flight) = flights.get(&key) {
            if flight.inputs_hash == order.inputs_hash && !flight.task.is_finished() {
                return flight.passenger();
            }
            // What the token depends on has changed: that flight makes no further try.
            before = Some((flight.state.clone(), flight.task.clone()));
        }
        let (sender, state) = watch::channel(State::Flying);
        let retry_now = Arc::new(Notify::new());
        let inputs_hash = order.inputs_hash.clone();
        let (all, wake, landing) = (self.clone(), retry_now.clone(), key.clone());
        let task = tokio::spawn(async move {
            if let Some((mut state, task)) = before {
                // A write of its own under way could otherwise arrive after ours.
                let _ = state.wait_for(|s| !matches!(s, State::Flying)).await;
                task.abort();
            }
            let keep_trying = || keep_trying && all.holds(&landing, &wake);
            fly(order, issue, refresh, keep_trying, &sender, &wake).await;
            // Another flight may have taken the place of this one meanwhile.
            if let Entry::Occupied(entry) = all.lock().entry(landing)
                && Arc::ptr_eq(&entry.get().retry_now, &wake)
            {
                entry.remove();
            }
        })
        .abort_handle();
        let flight = Flight {
            inputs_hash,
            state,
            retry_now,
            task,
        };
        let passenger = flight.passenger();
        flights.insert(key, flight);
        passenger
    }

    /// Whether a flight for other inputs is under way or has just landed: what the watch
    /// shows of this pull secret may be outdated.
    pub fn other_inputs(&self, order: &Order) -> bool {
        let flights = self.lock();
        // As nearly always: nobody waits for a token.
        if flights.is_empty() {
            return false;
        }
        let key = (order.namespace.clone(), order.name.clone());
        flights
            .get(&key)
            .is_some_and(|f| f.inputs_hash != order.inputs_hash)
    }

    /// The object is gone: forgets what was done for it, and tries no further. A try under way
    /// goes on for those who wait for it; nobody else joins it, for it may have written too early.
    pub fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let flight = self.lock().remove(&key);
        if let Some(flight) = flight.filter(|f| !f.is_flying()) {
            flight.task.abort();
        }
    }

    /// Forgets how a flight of this order ended: whoever joins next starts another one.
    pub fn forget_outcome(&self, order: &Order) {
        let key = (order.namespace.clone(), order.name.clone());
        let mut flights = self.lock();
        if let Entry::Occupied(entry) = flights.entry(key)
            && entry.get().has_landed()
        {
            entry.remove().task.abort();
        }
    }

    /// Whether the flight with this bell is still the one of its pull secret.
    fn holds(&self, key: &Key, bell: &Arc<Notify>) -> bool {
        let flights = self.lock();
        flights.get(key).is_some_and(|f| Arc::ptr_eq(&f.retry_now, bell))
    }

    /// Never held across an await; a panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn fly(
    mut order: Arc<Order>,
    issue: impl AsyncTry<Arc<Order>, ()>,
    refresh: impl AsyncTry<(), Arc<Order>>,
    keep_trying: impl Fn() -> bool,
    state: &watch::Sender<State>,
    retry_now: &Notify,
) {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(MIN_RETRY)
        .with_max_delay(MAX_RETRY)
        .with_jitter()
        .without_max_times();
    for delay in backoff.build() {
        let outcome = issue.call(order.clone()).await;
        let floor = match outcome {
            Err(problem) if keep_trying() && problem.is_transient() => {
                let asked = problem.retry_after.unwrap_or(MIN_RETRY);
                let floor = asked.clamp(MIN_RETRY, MAX_RETRY);
                state.send_replace(State::Waiting(problem, Instant::now() + floor));
                floor
            }
            outcome => return land(state, outcome).await,
        };
        sleep(floor).await;
        tokio::select! {
            () = sleep(delay.saturating_sub(floor)) => {}
            () = retry_now.notified() => {}
        }
        state.send_replace(State::Flying);
        match refresh.call(()).await {
            Ok(anew) => order = anew,
            // The API server's silence says nothing about the order.
            Err(problem) if problem.is_transient() => {}
            Err(problem) => return land(state, Err(problem)).await,
        }
    }
}

async fn land(state: &watch::Sender<State>, outcome: Result<(), Problem>) {
    let remember = match outcome {
        Ok(()) => REMEMBER_SUCCESS,
        Err(_) => REMEMBER_REFUSAL,
    };
    state.send_replace(State::Landed(outcome));
    sleep(remember).await;
}

// === impl Flight ===

impl Flight {
    fn passenger(&self) -> Passenger {
        Passenger {
            state: self.state.clone(),
            retry_now: self.retry_now.clone(),
        }
    }

    fn has_landed(&self) -> bool {
        matches!(*self.state.borrow(), State::Landed(_))
    }

    fn is_flying(&self) -> bool {
        matches!(*self.state.borrow(), State::Flying)
    }
}

// === impl Passenger ===

impl Passenger {
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
