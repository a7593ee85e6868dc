//! How many tests run at the same time: as many as keep the processors busy. Most tests wait for Kubernetes half of the
//! time, and at the same time other tests run on kind clusters, so no fixed number is right. The test harness has more
//! threads than that, and each thread waits here until its test may start. GNU make limits its jobs in the same way
//! (`--load-average`), but the load average follows the load only after a minute.

use std::{
    sync::{Condvar, Mutex},
    thread::available_parallelism,
    time::Duration,
};
use sysinfo::System;

/// Processors that were busy for less than this part of an interval, in percent, are a reason to start one more test.
const BUSY: f32 = 80.0;
/// A control plane needs 1 GB, so that on a machine with many processors memory is the limit: one part in four of it stays
/// available.
const MEMORY_PARTS: u64 = 4;
/// A test that has just started uses the processors within this time.
const INTERVAL: Duration = Duration::from_secs(1);

static TESTS: Tests = Tests::new();

/// Waits until fewer than three tests run for two processors, or until processors are idle and memory is available. On a
/// machine that other programs keep busy, no processor is ever idle.
pub(crate) fn start() -> Running<'static> {
    let processors = available_parallelism().map_or(1, usize::from);
    let mut system = System::new().expect("the usage of the processors can be read");
    TESTS.start((processors * 3).div_ceil(2), || {
        system.refresh_cpu_usage();
        system.refresh_memory();
        system.global_cpu_usage() < BUSY && system.available_memory() > system.total_memory() / MEMORY_PARTS
    })
}

/// Waits for another test of this process. Meanwhile one more test may run in place of this one.
pub async fn wait_for_another_test<T>(waiting: impl Future<Output = T>) -> T {
    let _aside = TESTS.aside();
    waiting.await
}

/// The tests of this process.
struct Tests {
    running: Mutex<usize>,
    ended: Condvar,
    /// Held by the test that starts next: each start changes what the others may conclude from idle processors.
    next: Mutex<()>,
}

impl Tests {
    const fn new() -> Self {
        Self {
            running: Mutex::new(0),
            ended: Condvar::new(),
            next: Mutex::new(()),
        }
    }

    /// Up to `always` tests run in any case. `has_room` returns whether the machine had room for one more test since the
    /// last call.
    fn start(&self, always: usize, mut has_room: impl FnMut() -> bool) -> Running<'_> {
        let _next = self.next.lock().unwrap();
        let mut running = self.running.lock().unwrap();
        has_room();
        while *running >= always {
            let waited = self.ended.wait_timeout(running, INTERVAL).unwrap();
            running = waited.0;
            if waited.1.timed_out() && has_room() {
                break;
            }
        }
        *running += 1;
        Running(self)
    }

    fn aside(&self) -> Aside<'_> {
        *self.running.lock().unwrap() -= 1;
        self.ended.notify_all();
        Aside(self)
    }
}

/// A running test, until it is dropped.
pub(crate) struct Running<'a>(&'a Tests);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap() -= 1;
        self.0.ended.notify_all();
    }
}

/// A test that waits for another one, until it is dropped. Then it runs again, even if more tests run than may start.
struct Aside<'a>(&'a Tests);

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc, thread};

    #[test]
    fn on_a_busy_machine_a_test_waits_until_another_one_ends() {
        let tests = Tests::new();
        let first = tests.start(1, || false);
        let (started, second) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _running = tests.start(1, || false);
                started.send(()).unwrap();
            });
            let waited = second.recv_timeout(2 * INTERVAL);
            assert!(waited.is_err(), "the second test started beside the first one");
            drop(first);
            second.recv().unwrap();
        });
    }

    #[test]
    fn a_test_starts_in_place_of_one_that_waits_for_another() {
        let tests = Tests::new();
        let _first = tests.start(1, || false);
        let aside = tests.aside();
        let _second = tests.start(1, || false);
        drop(aside);
        assert_eq!(*tests.running.lock().unwrap(), 2);
    }

    #[test]
    fn on_an_idle_machine_more_tests_run_than_in_any_case() {
        let tests = Tests::new();
        let _running: Vec<_> = (0..3).map(|_| tests.start(1, || true)).collect();
        assert_eq!(*tests.running.lock().unwrap(), 3);
    }
}
