//! A limit on the rate of an operation.

use std::time::Duration;
use tokio::{
    sync::Mutex,
    time::{Interval, MissedTickBehavior, interval},
};

/// Grants permits at regular intervals. Unused permits are not saved, so there are no bursts.
pub struct RateLimiter(Mutex<Interval>);

impl RateLimiter {
    /// Grants at most this number of permits per second.
    pub fn new(per_second: u32) -> Self {
        // A period of zero would panic.
        let mut interval =
            interval((Duration::from_secs(1) / per_second.max(1)).max(Duration::from_nanos(1)));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Mutex::new(interval))
    }

    /// Waits for a permit.
    pub async fn acquire(&self) {
        self.0.lock().await.tick().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn permits_are_granted_at_the_rate_and_not_saved() {
        let limiter = RateLimiter::new(10);
        tokio::time::advance(Duration::from_secs(5)).await;
        let start = Instant::now();
        for _ in 0..11 {
            limiter.acquire().await;
        }
        let took = start.elapsed();
        assert!(
            (Duration::from_secs(1)..Duration::from_millis(1_020)).contains(&took),
            "{took:?}"
        );
    }
}
