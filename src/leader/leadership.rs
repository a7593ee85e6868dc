//! The period for which a process leads.

use crate::telemetry::Metrics;
use std::{pin::pin, task::Poll};
use tokio::{sync::watch, time::Instant};

/// A leader's right to do its work. It never becomes valid again once it has ended; a later election creates a new one.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Instant>);

/// Extends the leadership, and ends it when dropped.
pub struct LeadershipGuard {
    until: watch::Sender<Instant>,
    metrics: Metrics,
}

impl Leadership {
    /// Whether this process leads now. The check is cheap; make it before each write.
    ///
    /// The clock is read each time, because a suspended process can resume at any point in the code.
    pub fn still_leads(&self) -> bool {
        Instant::now() < *self.0.borrow()
    }
}

impl LeadershipGuard {
    /// Begins a leadership that ends at `until` unless it is extended.
    pub fn begin(until: Instant, metrics: Metrics) -> Self {
        metrics.set_leading_until(Some(until));
        Self {
            until: watch::Sender::new(until),
            metrics,
        }
    }

    /// The leadership, to be passed to the work.
    pub fn leadership(&self) -> Leadership {
        Leadership(self.until.subscribe())
    }

    /// When the leadership ends unless it is extended.
    pub fn until(&self) -> Instant {
        *self.until.borrow()
    }

    /// Extends the leadership. Returns false if it has already ended.
    pub fn extend(&self, until: Instant) -> bool {
        let extended = self.until.send_if_modified(|end| {
            let is_valid = Instant::now() < *end;
            if is_valid {
                *end = until;
            }
            is_valid
        });
        if extended {
            self.metrics.set_leading_until(Some(until));
        }
        extended
    }
}

impl Drop for LeadershipGuard {
    fn drop(&mut self) {
        self.until.send_replace(Instant::now());
        self.metrics.set_leading_until(None);
    }
}

/// Polls the work only while the leadership lasts. The caller drops the work afterwards.
pub async fn while_leading(leadership: Leadership, work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        if leadership.still_leads() {
            work.as_mut().poll(context)
        } else {
            Poll::Pending
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::time::Duration;
    use tokio::time::advance;

    const SECOND: Duration = Duration::from_secs(1);

    fn guard() -> LeadershipGuard {
        LeadershipGuard::begin(Instant::now() + SECOND, Metrics::new())
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_at_its_deadline() {
        let guard = guard();
        let leadership = guard.leadership();
        advance(SECOND - Duration::from_millis(1)).await;
        assert!(leadership.still_leads());
        advance(Duration::from_millis(1)).await;
        assert!(!leadership.still_leads());
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_can_be_extended_only_before_it_ends() {
        let guard = guard();
        let leadership = guard.leadership();
        assert!(guard.extend(Instant::now() + 2 * SECOND));
        advance(SECOND).await;
        assert!(leadership.still_leads());
        advance(SECOND).await;
        assert!(!guard.extend(Instant::now() + SECOND));
        assert!(!leadership.still_leads());
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_when_its_guard_is_dropped() {
        let guard = guard();
        let leadership = guard.leadership();
        drop(guard);
        assert!(!leadership.still_leads());
    }

    #[tokio::test(start_paused = true)]
    async fn work_is_not_polled_after_leadership_ends() {
        let guard = guard();
        let mut steps = 0;
        let endless = std::future::poll_fn(|_| {
            steps += 1;
            Poll::<()>::Pending
        });
        let mut work = Box::pin(while_leading(guard.leadership(), endless));
        assert!(work.as_mut().now_or_never().is_none());
        advance(SECOND).await;
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        assert_eq!(steps, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_gauge_turns_zero_at_the_deadline() {
        let metrics = Metrics::new();
        let gauge = |value: u8| {
            let line = format!("\nacr_pull_webhook_leader {value}\n");
            metrics.encode().unwrap().contains(&line)
        };
        assert!(gauge(0));
        let guard = LeadershipGuard::begin(Instant::now() + SECOND, metrics.clone());
        assert!(gauge(1));
        guard.extend(Instant::now() + 2 * SECOND);
        advance(SECOND).await;
        assert!(gauge(1));
        advance(SECOND).await;
        assert!(gauge(0));
    }
}
