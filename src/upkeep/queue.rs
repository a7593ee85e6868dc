//! What is to be reconciled, and when: each key once, at the earliest time that was asked for; never one key twice at the
//! same time; namespaces in turn, and none with all of the slots.
//!
//! kube's `applier` is a queue of the same kind, but it drops the keys of which its store has no object, and those are what
//! has to be restored; and it takes keys as they come, so that 5,000 of one namespace go before one of another.

use super::Key;
use futures::stream::{FuturesUnordered, StreamExt};
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// Keys that wait for their time.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    bell: Notify,
}

#[derive(Default)]
struct State {
    /// The time of each key that waits for it.
    times: HashMap<Key, Instant>,
    /// The same by time.
    waiting: BTreeSet<(Instant, Key)>,
    /// The keys whose time has come, of each namespace in the order in which it came.
    due: HashMap<String, VecDeque<String>>,
    /// The namespaces of `due`, in the order of their turns.
    turns: VecDeque<String>,
    /// The keys that are reconciled at the moment; true for those whose time has come again.
    running: HashMap<Key, bool>,
    /// How many of them are of each namespace.
    slots: HashMap<String, usize>,
    /// The keys of `due`.
    is_due: HashSet<Key>,
}

// === impl Queue ===

impl Queue {
    /// Asks for this key now.
    pub fn wake(&self, key: Key) {
        self.at(key, Instant::now());
    }

    /// Asks for this key at this time, or earlier where that was asked for already.
    pub fn at(&self, key: Key, time: Instant) {
        self.lock().add(key, time);
        self.bell.notify_one();
    }

    /// Reconciles what is due, so many keys at the same time, until it is dropped. `reconcile` says after how long it wants
    /// to see the key again.
    pub async fn run<F>(&self, slots: usize, reconcile: impl Fn(Key) -> F)
    where
        F: Future<Output = Option<Duration>>,
    {
        // A namespace whose upstream hangs leaves slots for the others.
        let most = (slots - slots / 4).max(1);
        let mut running = FuturesUnordered::new();
        loop {
            let next = match running.len() < slots {
                true => self.lock().next(most, Instant::now()),
                false => None,
            };
            if let Some(key) = next {
                let reconciled = reconcile(key.clone());
                running.push(async move { (key, reconciled.await) });
                continue;
            }
            let alarm = self.lock().waiting.first().map(|(time, _)| *time);
            tokio::select! {
                Some((key, again)) = running.next() => {
                    let mut state = self.lock();
                    state.done(&key);
                    if let Some(time) = again.and_then(|wait| Instant::now().checked_add(wait)) {
                        state.add(key, time);
                    }
                }
                () = self.bell.notified() => {}
                () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() && running.len() < slots => {}
            }
        }
    }

    /// Never held across an await; a panic elsewhere leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn add(&mut self, key: Key, time: Instant) {
        if self.is_due.contains(&key) {
            return;
        }
        if let Some(before) = self.times.get(&key) {
            if *before <= time {
                return;
            }
            self.waiting.remove(&(*before, key.clone()));
        }
        self.times.insert(key.clone(), time);
        self.waiting.insert((time, key));
    }

    /// The next key that is due and not reconciled already, of the next namespace that has fewer slots than `most`.
    fn next(&mut self, most: usize, now: Instant) -> Option<Key> {
        while self.waiting.first().is_some_and(|(time, _)| *time <= now) {
            if let Some((_, key)) = self.waiting.pop_first() {
                self.times.remove(&key);
                match self.running.get_mut(&key) {
                    Some(again) => *again = true,
                    None => self.put(key),
                }
            }
        }
        for _ in 0..self.turns.len() {
            let namespace = self.turns.pop_front()?;
            if self.slots.get(&namespace).is_some_and(|slots| *slots >= most) {
                self.turns.push_back(namespace);
                continue;
            }
            let Some(name) = self.due.get_mut(&namespace).and_then(VecDeque::pop_front) else {
                self.due.remove(&namespace);
                continue;
            };
            let key = (namespace.clone(), name);
            self.is_due.remove(&key);
            *self.slots.entry(namespace.clone()).or_default() += 1;
            self.running.insert(key.clone(), false);
            self.turns.push_back(namespace);
            return Some(key);
        }
        None
    }

    fn put(&mut self, key: Key) {
        if !self.is_due.insert(key.clone()) {
            return;
        }
        let (namespace, name) = key;
        let names = self.due.entry(namespace.clone()).or_insert_with(|| {
            self.turns.push_back(namespace);
            VecDeque::new()
        });
        names.push_back(name);
    }

    fn done(&mut self, key: &Key) {
        if let Some(slots) = self.slots.get_mut(&key.0) {
            *slots -= 1;
            if *slots == 0 {
                self.slots.remove(&key.0);
            }
        }
        if self.running.remove(key) == Some(true) {
            self.put(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(namespace: &str, name: impl ToString) -> Key {
        (namespace.to_owned(), name.to_string())
    }

    /// Runs the queue for so many seconds; returns at which second each key began.
    async fn run(
        queue: &Queue,
        slots: usize,
        seconds: u64,
        each: Duration,
        again: Option<Duration>,
    ) -> Vec<(Key, u64)> {
        let (began, start) = (RefCell::new(Vec::new()), Instant::now());
        let reconcile = |key: Key| {
            began.borrow_mut().push((key, start.elapsed().as_secs()));
            async move {
                sleep(each).await;
                again
            }
        };
        tokio::select! {
            () = queue.run(slots, reconcile) => {}
            () = sleep(SECOND * seconds as u32 - SECOND / 2) => {}
        }
        began.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_asked_for_often_comes_once_at_the_earliest_time() {
        let queue = Queue::default();
        let now = Instant::now();
        for seconds in [9, 3, 5, 3, 7] {
            queue.at(key("a", "x"), now + SECOND * seconds);
        }
        queue.wake(key("a", "y"));
        queue.wake(key("a", "y"));
        let came = run(&queue, 4, 20, Duration::ZERO, None).await;
        assert_eq!(came, [(key("a", "y"), 0), (key("a", "x"), 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_asked_for_while_it_is_reconciled_comes_once_more_and_never_twice_at_once() {
        let queue = Queue::default();
        let (at_once, times) = (Cell::new(0), Cell::new(0));
        queue.wake(key("a", "x"));
        let reconcile = |_| {
            times.set(times.get() + 1);
            let (queue, at_once, first) = (&queue, &at_once, times.get() == 1);
            async move {
                at_once.set(at_once.get() + 1);
                assert_eq!(at_once.get(), 1, "never twice at the same time");
                for _ in 0..4 {
                    sleep(SECOND).await;
                    if first {
                        queue.wake(key("a", "x"));
                    }
                }
                at_once.set(at_once.get() - 1);
                None
            }
        };
        tokio::select! {
            () = queue.run(4, reconcile) => {}
            () = sleep(SECOND * 60) => {}
        }
        assert_eq!(times.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_come_in_turn_and_none_takes_all_slots() {
        let queue = Queue::default();
        for n in 0..100 {
            queue.wake(key("crowd", n));
        }
        queue.wake(key("quiet", 0));
        let came = run(&queue, 4, 1, Duration::from_secs(9), None).await;
        let names: Vec<_> = came.iter().map(|(key, _)| key.0.as_str()).collect();
        assert_eq!(names, ["crowd", "quiet", "crowd", "crowd"]);
        // What came while the crowd hangs in three of four slots.
        let queue = Queue::default();
        for n in 0..100 {
            queue.wake(key("crowd", n));
        }
        queue.at(key("quiet", 0), Instant::now() + SECOND * 3);
        let came = run(&queue, 4, 5, Duration::from_secs(9), None).await;
        assert_eq!(came.len(), 4);
        assert_eq!(came[3], (key("quiet", 0), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_comes_again_after_the_time_that_its_last_turn_asked_for() {
        let queue = Queue::default();
        queue.wake(key("a", "x"));
        let came = run(&queue, 1, 11, Duration::ZERO, Some(SECOND * 4)).await;
        assert_eq!(
            came.iter().map(|(_, second)| *second).collect::<Vec<_>>(),
            [0, 4, 8]
        );
        assert!(queue.lock().slots.is_empty() && queue.lock().turns.len() <= 1);
    }
}
