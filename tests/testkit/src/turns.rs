//! What a test repeats while something else happens, such as the creation of Pods during a rotation of certificates.

use std::time::Duration;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Short enough for several turns within each step of what happens meanwhile, and long enough that the turns take little
/// of the processors, which the other tests need.
const PAUSE: Duration = Duration::from_millis(100);

/// Up to ten turns per second. The first one is now.
pub fn turns() -> Interval {
    turns_every(PAUSE)
}

/// The same with another interval. A turn that is late does not let the next one come earlier.
pub fn turns_every(pause: Duration) -> Interval {
    let mut turns = interval(pause);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns
}
