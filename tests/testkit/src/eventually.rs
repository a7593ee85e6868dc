//! Waiting for a condition.

use crate::{
    run::{last_observed, waiting_for},
    speed,
};
use std::time::{Duration, Instant};

/// The longest wait is for the garbage collector of Kubernetes, which looks for new kinds every 30 s.
const NOMINAL_LIMIT: Duration = Duration::from_secs(90);
/// The pause before the next check is this part of the wait so far: a check costs the API server some milliseconds of CPU
/// time, which the other tests need during a long wait.
const PAUSE_PART: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Waits until `check` returns a value.
pub async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    eventually_within(NOMINAL_LIMIT, what, check).await
}

/// The same with another limit, which is scaled with the machine's speed.
pub async fn eventually_within<T>(nominal: Duration, what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let _waiting = waiting_for(what);
    let began = Instant::now();
    let found = tokio::time::timeout(speed::scaled(nominal), async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            let pause = began.elapsed() / PAUSE_PART;
            tokio::time::sleep(pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    });
    let Ok(found) = found.await else {
        panic!("not within {:?}: {what}{}", began.elapsed(), last_observed());
    };
    found
}
