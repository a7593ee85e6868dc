//! A limit on the rate of an operation.

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Grants permits at regular intervals. Unused permits are not saved, so there are no bursts.
pub struct RateLimiter {
    interval: Duration,
    next: Mutex<Instant>,
}

impl RateLimiter {
    /// Grants at most this number of permits per second.
    pub fn new(per_second: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits for a permit.
    pub async fn acquire(&self) {
        let granted_at = {
            let mut next = self.next.lock();
            let granted_at = (*next).max(Instant::now());
            *next = granted_at + self.interval;
            granted_at
        };
        sleep_until(granted_at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
