//! How many tests run at the same time: as many as keep the processors busy. Most tests wait for Kubernetes half of the
//! time, and at the same time other tests run on kind clusters, so no fixed number is right. The test harness has more
//! threads than that, and each thread waits here until its test may start. GNU make limits its jobs in the same way
//! (`--load-average`), but the load average follows the load only after a minute.

use std::{
    fs,
    sync::{Condvar, Mutex},
    thread::available_parallelism,
    time::Duration,
};

/// Idle processors are a reason to start one more test if they were idle for this part of an interval.
const MIN_IDLE_PART: f64 = 0.2;
/// A test that has just started needs the processors within this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// The number of running tests of this process.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();
/// Held by the test that starts next: each start changes what the others may conclude from idle processors.
static NEXT: Mutex<()> = Mutex::new(());

/// A test that runs, until it is dropped.
pub(crate) struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= 1;
        ENDED.notify_all();
    }
}

/// Waits until fewer tests run than there are processors, or until processors are idle.
pub(crate) fn start() -> Running {
    let _next = NEXT.lock().unwrap();
    let processors = available_parallelism().map_or(1, usize::from);
    let mut before = Times::now();
    let mut running = RUNNING.lock().unwrap();
    while *running >= processors {
        let (guard, waited) = ENDED.wait_timeout(running, INTERVAL).unwrap();
        running = guard;
        if waited.timed_out() {
            let now = Times::now();
            if now.idle_part_since(&before) >= MIN_IDLE_PART {
                break;
            }
            before = now;
        }
    }
    *running += 1;
    Running
}

/// The times of all processors since the start of the machine, in ticks.
#[derive(Clone, Copy)]
struct Times {
    all: u64,
    idle: u64,
}

impl Times {
    /// On a system other than Linux, the processors are never idle.
    fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    /// The first line of `/proc/stat`: `cpu`, then the times in the modes user, nice, system, idle, iowait, irq,
    /// softirq and steal (proc_stat(5)). Those of guests are also a part of user and nice.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let times: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|time| time.parse().ok())
            .collect();
        Self {
            all: times.iter().sum(),
            idle: times.iter().skip(3).take(2).sum(),
        }
    }

    fn idle_part_since(&self, before: &Self) -> f64 {
        match self.all.saturating_sub(before.all) {
            0 => 0.0,
            all => self.idle.saturating_sub(before.idle) as f64 / all as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_idle_part_is_that_of_the_time_between_two_readings() {
        let before = Times::parse("cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        let after = Times::parse("cpu  150 0 60 830 60 0 0 0 7 7\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!(after.idle_part_since(&before), 0.4);
        assert_eq!(before.idle_part_since(&before), 0.0);
    }

    #[test]
    fn processors_are_not_idle_where_their_times_are_unknown() {
        assert_eq!(Times::parse("").idle_part_since(&Times::parse("")), 0.0);
    }
}
