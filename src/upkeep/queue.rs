//! The work queue of the leader: each key is reconciled at its earliest requested time and never concurrently with
//! itself. Namespaces take turns, and no namespace occupies all slots.
//!
//! kube's `applier` is a similar queue. But it drops keys whose object is not in its store, and those must be restored;
//! and it processes keys in order of arrival, so that 5,000 keys of one namespace delay all others.

use crate::names::{NamespaceName, NamespacedName, ObjectName};
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// A queue of keys with due times.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    /// Schedules the key for now.
    pub fn wake(&self, key: NamespacedName) {
        self.wake_at(key, Instant::now());
    }

    /// Schedules the key for this time, unless it is scheduled for an earlier one.
    pub fn wake_at(&self, key: NamespacedName, time: Instant) {
        self.state.lock().schedule(key, time);
        self.changed.notify_one();
    }

    /// How many keys are due and wait for a slot, and how many are running.
    pub fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.waiting(Instant::now()), state.running.len())
    }

    /// Reconciles due keys, at most `slots` concurrently, until the future is dropped. `reconcile` returns the delay
    /// after which to reconcile the key again.
    pub async fn run<F>(&self, slots: usize, reconcile: impl Fn(NamespacedName) -> F)
    where
        F: Future<Output = Option<Duration>>,
    {
        // A namespace whose upstream hangs leaves slots to the others.
        let max_per_namespace = (slots - slots / 4).max(1);
        let mut running = FuturesUnordered::new();
        loop {
            let next = if running.len() < slots {
                self.state.lock().next(max_per_namespace, Instant::now())
            } else {
                None
            };
            if let Some(key) = next {
                let reconciled = reconcile(key.clone());
                running.push(async move { (key, reconciled.await) });
                continue;
            }
            let next_time = self.state.lock().scheduled.first().map(|(time, _)| *time);
            tokio::select! {
                Some((key, requeue_after)) = running.next() => {
                    let mut state = self.state.lock();
                    state.finish(&key);
                    if let Some(time) = requeue_after.and_then(|delay| Instant::now().checked_add(delay)) {
                        state.schedule(key, time);
                    }
                }
                () = self.changed.notified() => {}
                () = sleep_until(next_time.unwrap_or_else(Instant::now)),
                    if next_time.is_some() && running.len() < slots => {}
            }
        }
    }
}

#[derive(Default)]
struct State {
    /// The scheduled keys by time.
    scheduled: BTreeSet<(Instant, NamespacedName)>,
    /// The time of each scheduled key.
    times: HashMap<NamespacedName, Instant>,
    /// The names of the due keys of each namespace, in the order in which they became due.
    due: HashMap<NamespaceName, VecDeque<ObjectName>>,
    /// The keys in `due`.
    is_due: HashSet<NamespacedName>,
    /// The namespaces in `due`, in the order of their turns.
    turns: VecDeque<NamespaceName>,
    /// The keys that are being reconciled; true if the key has become due again meanwhile.
    running: HashMap<NamespacedName, bool>,
    /// The number of running keys per namespace.
    slots: HashMap<NamespaceName, usize>,
}

impl State {
    fn schedule(&mut self, key: NamespacedName, time: Instant) {
        if self.is_due.contains(&key) {
            return;
        }
        if let Some(earlier) = self.times.get(&key) {
            if *earlier <= time {
                return;
            }
            self.scheduled.remove(&(*earlier, key.clone()));
        }
        self.times.insert(key.clone(), time);
        self.scheduled.insert((time, key));
    }

    /// The next due key that is not running, from the next namespace with fewer than `max_per_namespace` running keys.
    fn next(&mut self, max_per_namespace: usize, now: Instant) -> Option<NamespacedName> {
        while self.scheduled.first().is_some_and(|(time, _)| *time <= now) {
            if let Some((_, key)) = self.scheduled.pop_first() {
                self.times.remove(&key);
                match self.running.get_mut(&key) {
                    Some(due_again) => *due_again = true,
                    None => self.push_due(key),
                }
            }
        }
        for _ in 0..self.turns.len() {
            let namespace = self.turns.pop_front()?;
            if self
                .slots
                .get(&namespace)
                .is_some_and(|slots| *slots >= max_per_namespace)
            {
                self.turns.push_back(namespace);
                continue;
            }
            let Some(name) = self.due.get_mut(&namespace).and_then(VecDeque::pop_front) else {
                self.due.remove(&namespace);
                continue;
            };
            let key = NamespacedName {
                namespace: namespace.clone(),
                name,
            };
            self.is_due.remove(&key);
            *self.slots.entry(namespace.clone()).or_default() += 1;
            self.running.insert(key.clone(), false);
            self.turns.push_back(namespace);
            return Some(key);
        }
        None
    }

    /// How many keys are due and not running. While all slots are taken, scheduled keys become due without being moved.
    fn waiting(&self, now: Instant) -> usize {
        let scheduled = self.scheduled.iter().take_while(|(time, _)| *time <= now);
        self.is_due.len()
            + scheduled
                .filter(|(_, key)| !self.running.contains_key(key))
                .count()
    }

    fn push_due(&mut self, key: NamespacedName) {
        if !self.is_due.insert(key.clone()) {
            return;
        }
        let NamespacedName { namespace, name } = key;
        let names = self.due.entry(namespace.clone()).or_insert_with(|| {
            self.turns.push_back(namespace);
            VecDeque::new()
        });
        names.push_back(name);
    }

    fn finish(&mut self, key: &NamespacedName) {
        if let Some(slots) = self.slots.get_mut(&key.namespace) {
            *slots -= 1;
            if *slots == 0 {
                self.slots.remove(&key.namespace);
            }
        }
        if self.running.remove(key) == Some(true) {
            self.push_due(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(namespace: &str, name: impl ToString) -> NamespacedName {
        NamespacedName::new(namespace, &name.to_string()).unwrap()
    }

    /// Runs the queue for this number of seconds. Returns in which second each key was started.
    async fn run(
        queue: &Queue,
        slots: usize,
        seconds: u64,
        duration: Duration,
        requeue_after: Option<Duration>,
    ) -> Vec<(NamespacedName, u64)> {
        let started = RefCell::new(Vec::new());
        let start = Instant::now();
        let reconcile = |key: NamespacedName| {
            started.borrow_mut().push((key, start.elapsed().as_secs()));
            async move {
                sleep(duration).await;
                requeue_after
            }
        };
        tokio::select! {
            () = queue.run(slots, reconcile) => {}
            () = sleep(SECOND * seconds as u32 - SECOND / 2) => {}
        }
        started.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_woken_repeatedly_runs_once_at_the_earliest_time() {
        let queue = Queue::default();
        let now = Instant::now();
        for seconds in [9, 3, 5, 3, 7] {
            queue.wake_at(key("a", "x"), now + SECOND * seconds);
        }
        queue.wake(key("a", "y"));
        queue.wake(key("a", "y"));
        let runs = run(&queue, 4, 20, Duration::ZERO, None).await;
        assert_eq!(runs, [(key("a", "y"), 0), (key("a", "x"), 3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_woken_while_it_runs_runs_once_more_and_never_concurrently() {
        let queue = Queue::default();
        let concurrent = Cell::new(0);
        let runs = Cell::new(0);
        queue.wake(key("a", "x"));
        let reconcile = |_| {
            runs.set(runs.get() + 1);
            let queue = &queue;
            let concurrent = &concurrent;
            let is_first = runs.get() == 1;
            async move {
                concurrent.set(concurrent.get() + 1);
                assert_eq!(concurrent.get(), 1, "the key runs concurrently with itself");
                for _ in 0..4 {
                    sleep(SECOND).await;
                    if is_first {
                        queue.wake(key("a", "x"));
                    }
                }
                concurrent.set(concurrent.get() - 1);
                None
            }
        };
        tokio::select! {
            () = queue.run(4, reconcile) => {}
            () = sleep(SECOND * 60) => {}
        }
        assert_eq!(runs.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn namespaces_take_turns_and_none_takes_all_slots() {
        let queue = Queue::default();
        for n in 0..100 {
            queue.wake(key("busy", n));
        }
        queue.wake(key("idle", 0));
        let runs = run(&queue, 4, 1, Duration::from_secs(9), None).await;
        let names: Vec<_> = runs.iter().map(|(key, _)| key.namespace.as_str()).collect();
        assert_eq!(names, ["busy", "idle", "busy", "busy"]);
        // The busy namespace hangs in three of four slots; the other namespace gets the fourth.
        let queue = Queue::default();
        for n in 0..100 {
            queue.wake(key("busy", n));
        }
        queue.wake_at(key("idle", 0), Instant::now() + SECOND * 3);
        let runs = run(&queue, 4, 5, Duration::from_secs(9), None).await;
        assert_eq!(runs.len(), 4);
        assert_eq!(runs[3], (key("idle", 0), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_load_is_that_of_due_and_running_keys() {
        let queue = Queue::default();
        for n in 0..10 {
            queue.wake(key("a", n));
        }
        queue.wake_at(key("a", 10), Instant::now() + SECOND * 3);
        assert_eq!(queue.load(), (10, 0));
        let watch = async {
            sleep(SECOND).await;
            // A namespace has at most three of four slots.
            assert_eq!(queue.load(), (7, 3));
            queue.wake(key("b", 0));
            sleep(SECOND).await;
            assert_eq!(queue.load(), (7, 4));
            sleep(SECOND * 2).await;
            assert_eq!(
                queue.load(),
                (8, 4),
                "all slots are taken when another key becomes due"
            );
        };
        tokio::select! {
            () = queue.run(4, |_| async { sleep(SECOND * 60).await; None }) => {}
            () = watch => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_runs_again_after_the_requested_delay() {
        let queue = Queue::default();
        queue.wake(key("a", "x"));
        let runs = run(&queue, 1, 11, Duration::ZERO, Some(SECOND * 4)).await;
        assert_eq!(
            runs.iter().map(|(_, second)| *second).collect::<Vec<_>>(),
            [0, 4, 8]
        );
        assert!(queue.state.lock().slots.is_empty() && queue.state.lock().turns.len() <= 1);
    }
}
