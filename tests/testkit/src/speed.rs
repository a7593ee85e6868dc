//! How fast this machine is: every time-out of the tests is a nominal duration multiplied by one factor, which is measured
//! at the start of each control plane.

use std::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// The start of a control plane on an idle machine with two cores.
const NOMINAL_START: Duration = Duration::from_secs(4);
/// The largest factor: on a machine that is slower than this, time-outs are better than tests of hours.
const MAX_FACTOR: f64 = 8.0;

/// The largest measured factor in percent, or 0 before the first start.
static PERCENT: AtomicU32 = AtomicU32::new(0);
static MEASURING: AtomicUsize = AtomicUsize::new(0);

/// Starts a control plane. The slowest start so far determines the factor.
pub fn measured<T>(start: impl FnOnce() -> T) -> T {
    MEASURING.fetch_add(1, Ordering::SeqCst);
    let began = Instant::now();
    let started = start();
    let took = began.elapsed();
    let percent = (factor_of(took) * 100.0) as u32;
    if PERCENT.fetch_max(percent, Ordering::SeqCst) < percent {
        println!(
            "a control plane started in {took:?}: time-outs are multiplied by {:.2}",
            factor()
        );
    }
    MEASURING.fetch_sub(1, Ordering::SeqCst);
    started
}

/// Whether the first control plane is starting. Until then, a slow test cannot be told from a slow machine.
pub(crate) fn is_unknown() -> bool {
    PERCENT.load(Ordering::SeqCst) == 0 && MEASURING.load(Ordering::SeqCst) > 0
}

fn factor() -> f64 {
    f64::from(PERCENT.load(Ordering::SeqCst).max(100)) / 100.0
}

/// A nominal duration on this machine. It is never shorter than the nominal duration.
pub fn scaled(nominal: Duration) -> Duration {
    nominal.mul_f64(factor())
}

/// The same, of whole seconds.
pub fn seconds(nominal: u64) -> Duration {
    scaled(Duration::from_secs(nominal))
}

fn factor_of(start: Duration) -> f64 {
    start.div_duration_f64(NOMINAL_START).clamp(1.0, MAX_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_proportional_within_its_bounds() {
        assert_eq!(factor_of(Duration::from_secs(1)), 1.0);
        assert_eq!(factor_of(Duration::from_secs(6)), 1.5);
        assert_eq!(factor_of(Duration::from_secs(700)), MAX_FACTOR);
    }
}
