//! Permits of which there are few, handed out fairly: between admissions and renewals, and between namespaces.
//!
//! A plain semaphore serves whoever came first, so that one namespace with many failing pull secrets delays all others.
//! Here waiters stand in one queue for each lane and namespace:
//! - Neither lane takes the last quarter of the permits: it is kept for the other lane.
//! - Within a lane the namespaces take turns. A namespace that holds a quarter of the permits is passed over
//!   while another one waits.
//!
//! To limit how many do something at the same time, hold the [`Turn`]. To limit how often something is done, make
//! [`Turns`] of one permit, wait until the interval has passed while the turn is held, and drop it: the waiters of the pace
//! are then served in the same fair order.
//!
//! ```
//! # use acr_pull_webhook::turns::{Lane, Turns};
//! # async fn example() {
//! let turns = Turns::new(1);
//! let turn = turns.take("team-a", Lane::Renewal).await;
//! tokio::time::sleep(std::time::Duration::from_millis(50)).await;
//! drop(turn);
//! # }
//! ```

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// For whom something is done. Neither lane can take all permits from the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// A Pod that is being admitted.
    Admission,
    /// A pull secret in use that is renewed or repaired.
    Renewal,
}

/// The permits, and those who wait for one; clones share them.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Inner>);

/// One permit. Dropping it gives it to the next in turn.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Inner>,
    lane: Lane,
    namespace: Arc<str>,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// What one lane leaves to the other one.
    reserve: usize,
    /// What one namespace may hold while others wait.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_waiter: u64,
    queues: [Queue; 2],
    /// How many permits each lane holds.
    taken: [usize; 2],
    /// How many permits each namespace holds.
    held: HashMap<Arc<str>, usize>,
    /// The lane that was served last: the other one is asked first.
    last: usize,
}

/// Those who wait in one lane.
#[derive(Debug, Default)]
struct Queue {
    /// Each namespace that waits, once, the next one first.
    order: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, BTreeMap<u64, oneshot::Sender<Turn>>>,
}

/// Leaves the queue when a waiter gives up.
struct Waiter<'a> {
    turns: &'a Turns,
    lane: Lane,
    namespace: Arc<str>,
    number: u64,
}

// === impl Turns ===

impl Turns {
    /// So many permits, and at least one.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self(Arc::new(Inner {
            limit,
            reserve: limit / 4,
            share: (limit / 4).max(1),
            state: Mutex::default(),
        }))
    }

    /// Waits for a permit. Whoever stops waiting leaves nothing behind.
    pub async fn take(&self, namespace: &str, lane: Lane) -> Turn {
        let namespace: Arc<str> = namespace.into();
        let (sender, mut receiver) = oneshot::channel();
        let number = self.0.enter(lane, &namespace, sender);
        let _waiter = Waiter {
            turns: self,
            lane,
            namespace: namespace.clone(),
            number,
        };
        match (&mut receiver).await {
            Ok(turn) => turn,
            // The sender is only dropped by the guard above, which is still here.
            Err(_) => std::future::pending().await,
        }
    }

    /// How many wait for a permit, and how many hold one.
    pub fn counts(&self) -> (usize, usize) {
        let state = self.0.lock();
        let waiting = |queue: &Queue| queue.waiting.values().map(BTreeMap::len).sum::<usize>();
        (
            state.queues.iter().map(waiting).sum(),
            state.taken.iter().sum::<usize>(),
        )
    }

    /// Whether nobody waits for a permit or holds one.
    pub fn is_idle(&self) -> bool {
        self.counts() == (0, 0)
    }
}

// === impl Inner ===

impl Inner {
    fn enter(self: &Arc<Self>, lane: Lane, namespace: &Arc<str>, sender: oneshot::Sender<Turn>) -> u64 {
        let number = {
            let mut state = self.lock();
            let number = state.next_waiter;
            state.next_waiter += 1;
            state.queues[lane.index()].push(namespace, number, sender);
            number
        };
        self.serve();
        number
    }

    /// Hands out what is free.
    fn serve(self: &Arc<Self>) {
        loop {
            let served = self.lock().pick(self);
            let Some((lane, namespace, sender)) = served else {
                return;
            };
            let turn = Turn {
                turns: self.clone(),
                lane,
                namespace,
            };
            // Not under the lock: a turn that nobody takes any more is given back by its drop.
            drop(sender.send(turn));
        }
    }

    /// Never held across an await; a panic elsewhere leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// The next waiter that may have a permit now; the permit is counted as taken.
    fn pick(&mut self, turns: &Inner) -> Option<(Lane, Arc<str>, oneshot::Sender<Turn>)> {
        if self.taken.iter().sum::<usize>() >= turns.limit {
            return None;
        }
        let lanes = match self.last {
            0 => [Lane::Renewal, Lane::Admission],
            _ => [Lane::Admission, Lane::Renewal],
        };
        for lane in lanes {
            let at = lane.index();
            if self.taken[at] >= turns.limit - turns.reserve {
                continue;
            }
            let held = &self.held;
            let has_share = |namespace: &str| held.get(namespace).is_some_and(|held| *held >= turns.share);
            if let Some((namespace, sender)) = self.queues[at].pop(has_share) {
                self.taken[at] += 1;
                *self.held.entry(namespace.clone()).or_default() += 1;
                self.last = at;
                return Some((lane, namespace, sender));
            }
        }
        None
    }

    fn give_back(&mut self, lane: Lane, namespace: &Arc<str>) {
        self.taken[lane.index()] -= 1;
        if let Some(held) = self.held.get_mut(namespace) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(namespace);
            }
        }
    }
}

// === impl Queue ===

impl Queue {
    fn push(&mut self, namespace: &Arc<str>, number: u64, sender: oneshot::Sender<Turn>) {
        let waiting = self.waiting.entry(namespace.clone()).or_default();
        if waiting.is_empty() {
            self.order.push_back(namespace.clone());
        }
        waiting.insert(number, sender);
    }

    /// The longest waiter of the next namespace that has not its share yet, or of the next one where all have.
    fn pop(&mut self, has_share: impl Fn(&str) -> bool) -> Option<(Arc<str>, oneshot::Sender<Turn>)> {
        let at = self.order.iter().position(|namespace| !has_share(namespace));
        let namespace = self.order.remove(at.unwrap_or(0))?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let (_, sender) = waiting.pop_first()?;
        match waiting.is_empty() {
            true => drop(self.waiting.remove(&namespace)),
            false => self.order.push_back(namespace.clone()),
        }
        Some((namespace, sender))
    }

    fn leave(&mut self, namespace: &Arc<str>, number: u64) {
        let Some(waiting) = self.waiting.get_mut(namespace) else {
            return;
        };
        if waiting.remove(&number).is_some() && waiting.is_empty() {
            self.waiting.remove(namespace);
            self.order.retain(|other| other != namespace);
        }
    }
}

// === impl Lane ===

impl Lane {
    fn index(self) -> usize {
        match self {
            Lane::Admission => 0,
            Lane::Renewal => 1,
        }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut state = self.turns.0.lock();
        state.queues[self.lane.index()].leave(&self.namespace, self.number);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.lock().give_back(self.lane, &self.namespace);
        self.turns.serve();
    }
}

#[cfg(test)]
mod tests;
