//! How fast this machine is, measured once: every time-out of the tests is a nominal duration multiplied by one factor.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// The start of a control plane on an idle machine with two cores.
const NOMINAL_START: Duration = Duration::from_secs(4);
/// A start that takes longer than this many times the nominal duration includes a build of Kubernetes.
const MAX_FACTOR: f64 = 8.0;

static FACTOR: OnceLock<f64> = OnceLock::new();
static MEASURING: AtomicUsize = AtomicUsize::new(0);

/// Starts a control plane. The first start determines the factor.
pub fn measured<T>(start: impl FnOnce() -> T) -> T {
    MEASURING.fetch_add(1, Ordering::SeqCst);
    let began = Instant::now();
    let started = start();
    FACTOR.get_or_init(|| {
        let factor = factor_of(began.elapsed());
        println!(
            "time-outs are multiplied by {factor:.1}, as the first control plane started in {:?}",
            began.elapsed()
        );
        factor
    });
    MEASURING.fetch_sub(1, Ordering::SeqCst);
    started
}

/// Whether a control plane is starting. Until the first one has started, a slow test cannot be told from a slow machine.
pub(crate) fn is_unknown() -> bool {
    FACTOR.get().is_none() && MEASURING.load(Ordering::SeqCst) > 0
}

/// A nominal duration on this machine. It is never shorter than the nominal duration.
pub fn scaled(nominal: Duration) -> Duration {
    nominal.mul_f64(FACTOR.get().copied().unwrap_or(1.0))
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
