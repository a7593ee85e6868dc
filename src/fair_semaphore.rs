//! A semaphore that shares its permits fairly between admissions and renewals, and between namespaces.
//!
//! A plain semaphore serves waiters in order of arrival, so one namespace with many failing pull secrets delays all
//! others. This semaphore has one queue for each lane and namespace:
//! - Neither lane takes the last quarter of the permits, which is reserved for the other lane.
//! - Within a lane the namespaces are served in rotation. A namespace that holds a quarter of the permits is passed
//!   over while another one waits.
//!
//! To limit concurrency, hold the [`FairPermit`]. To limit a rate, use a [`FairSemaphore`] with one permit, hold the
//! permit for the interval and drop it. Waiters are then served in the same fair order.
//!
//!
//! ```
//! # use acr_pull_webhook::fair_semaphore::{Lane, FairSemaphore};
//! # async fn example() {
//! let semaphore = FairSemaphore::new(1);
//! let permit = semaphore.acquire("team-a", Lane::Renewal).await;
//! tokio::time::sleep(std::time::Duration::from_millis(50)).await;
//! drop(permit);
//! # }
//! ```

use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};
use tokio::sync::oneshot;

/// The purpose of a permit. Neither lane can take all permits from the other one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The admission of a Pod.
    Admission,
    /// The renewal or repair of a pull secret in use.
    Renewal,
}

/// The permits and the queues of waiters. Clones share them.
#[derive(Clone, Debug)]
pub struct FairSemaphore(Arc<Inner>);

/// One permit. When dropped, it passes to the next waiter.
#[derive(Debug)]
pub struct FairPermit {
    semaphore: Arc<Inner>,
    lane: Lane,
    namespace: Arc<str>,
}

#[derive(Debug)]
struct Inner {
    limit: usize,
    /// Permits that one lane leaves to the other one.
    reserve: usize,
    /// Permits that one namespace may hold while others wait.
    share: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_ticket: u64,
    queues: [Queue; 2],
    /// Permits held by each lane.
    held_by_lane: [usize; 2],
    /// Permits held by each namespace.
    held_by_namespace: HashMap<Arc<str>, usize>,
    /// The lane served last. The other lane is considered first.
    last_lane: usize,
}

/// The waiters of one lane.
#[derive(Debug, Default)]
struct Queue {
    /// Each waiting namespace once, the next one first.
    rotation: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, BTreeMap<u64, oneshot::Sender<FairPermit>>>,
}

/// Removes the waiter from its queue when dropped.
struct Waiter<'a> {
    semaphore: &'a FairSemaphore,
    lane: Lane,
    namespace: Arc<str>,
    ticket: u64,
}

impl FairSemaphore {
    /// Creates a semaphore with `limit` permits, at least one.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self(Arc::new(Inner {
            limit,
            reserve: limit / 4,
            share: (limit / 4).max(1),
            state: Mutex::default(),
        }))
    }

    /// Waits for a permit. A cancelled waiter leaves its queue.
    pub async fn acquire(&self, namespace: &str, lane: Lane) -> FairPermit {
        let namespace: Arc<str> = namespace.into();
        let (sender, mut receiver) = oneshot::channel();
        let ticket = self.0.enqueue(lane, &namespace, sender);
        let _waiter = Waiter {
            semaphore: self,
            lane,
            namespace: namespace.clone(),
            ticket,
        };
        match (&mut receiver).await {
            Ok(permit) => permit,
            // Only the guard above drops the sender, and it is still alive.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Inner {
    fn enqueue(
        self: &Arc<Self>,
        lane: Lane,
        namespace: &Arc<str>,
        sender: oneshot::Sender<FairPermit>,
    ) -> u64 {
        let ticket = {
            let mut state = self.state.lock();
            let ticket = state.next_ticket;
            state.next_ticket += 1;
            state.queues[lane.index()].push(namespace, ticket, sender);
            ticket
        };
        self.grant_free();
        ticket
    }

    /// Grants all available permits to waiters.
    fn grant_free(self: &Arc<Self>) {
        loop {
            let served = self.state.lock().next_waiter(self);
            let Some((lane, namespace, sender)) = served else {
                return;
            };
            let permit = FairPermit {
                semaphore: self.clone(),
                lane,
                namespace,
            };
            // Sent without the lock: if the receiver is gone, dropping the permit takes the lock.
            drop(sender.send(permit));
        }
    }
}

impl State {
    /// Selects the next waiter that may have a permit, and counts the permit as held.
    fn next_waiter(&mut self, semaphore: &Inner) -> Option<(Lane, Arc<str>, oneshot::Sender<FairPermit>)> {
        if self.held_by_lane.iter().sum::<usize>() >= semaphore.limit {
            return None;
        }
        let lanes = match self.last_lane {
            0 => [Lane::Renewal, Lane::Admission],
            _ => [Lane::Admission, Lane::Renewal],
        };
        for lane in lanes {
            let at = lane.index();
            if self.held_by_lane[at] >= semaphore.limit - semaphore.reserve {
                continue;
            }
            let held = &self.held_by_namespace;
            let has_share =
                |namespace: &str| held.get(namespace).is_some_and(|held| *held >= semaphore.share);
            if let Some((namespace, sender)) = self.queues[at].pop(has_share) {
                self.held_by_lane[at] += 1;
                *self.held_by_namespace.entry(namespace.clone()).or_default() += 1;
                self.last_lane = at;
                return Some((lane, namespace, sender));
            }
        }
        None
    }

    fn release(&mut self, lane: Lane, namespace: &Arc<str>) {
        self.held_by_lane[lane.index()] -= 1;
        if let Some(held) = self.held_by_namespace.get_mut(namespace) {
            *held -= 1;
            if *held == 0 {
                self.held_by_namespace.remove(namespace);
            }
        }
    }
}

impl Queue {
    fn push(&mut self, namespace: &Arc<str>, ticket: u64, sender: oneshot::Sender<FairPermit>) {
        let waiting = self.waiting.entry(namespace.clone()).or_default();
        if waiting.is_empty() {
            self.rotation.push_back(namespace.clone());
        }
        waiting.insert(ticket, sender);
    }

    /// The longest waiter of the next namespace below its share, or of the next namespace if none is below it.
    fn pop(&mut self, has_share: impl Fn(&str) -> bool) -> Option<(Arc<str>, oneshot::Sender<FairPermit>)> {
        let at = self.rotation.iter().position(|namespace| !has_share(namespace));
        let namespace = self.rotation.remove(at.unwrap_or(0))?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let (_, sender) = waiting.pop_first()?;
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.rotation.push_back(namespace.clone());
        }
        Some((namespace, sender))
    }

    fn remove(&mut self, namespace: &Arc<str>, ticket: u64) {
        let Some(waiting) = self.waiting.get_mut(namespace) else {
            return;
        };
        if waiting.remove(&ticket).is_some() && waiting.is_empty() {
            self.waiting.remove(namespace);
            self.rotation.retain(|other| other != namespace);
        }
    }
}

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
        let mut state = self.semaphore.0.state.lock();
        state.queues[self.lane.index()].remove(&self.namespace, self.ticket);
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.semaphore.state.lock().release(self.lane, &self.namespace);
        self.semaphore.grant_free();
    }
}

#[cfg(test)]
mod tests;
