//! The time for which a process leads.

use crate::telemetry::Metrics;
use std::{pin::pin, task::Poll};
use tokio::{sync::watch, time::Instant};

/// A leader's right to do its work. Once over, a term never comes back: the next one is another.
#[derive(Clone, Debug)]
pub struct Term(watch::Receiver<Instant>);

/// The other end: it prolongs the term, and ends it when dropped.
pub struct Tenure {
    until: watch::Sender<Instant>,
    metrics: Metrics,
}

// === impl Term ===

impl Term {
    /// Whether this process leads at this very moment. It is cheap: ask before each write.
    ///
    /// The clock is read each time, for a process that was stopped wakes up anywhere in the code.
    pub fn still_leads(&self) -> bool {
        Instant::now() < *self.0.borrow()
    }
}

// === impl Tenure ===

impl Tenure {
    /// A term until this moment.
    pub fn begin(until: Instant, metrics: Metrics) -> Self {
        metrics.set_leading_until(Some(until));
        Self {
            until: watch::Sender::new(until),
            metrics,
        }
    }

    /// What the work gets.
    pub fn term(&self) -> Term {
        Term(self.until.subscribe())
    }

    /// When the term ends, as things stand.
    pub fn until(&self) -> Instant {
        *self.until.borrow()
    }

    /// Prolongs the term; false when it is over already.
    pub fn extend(&self, until: Instant) -> bool {
        let extended = self.until.send_if_modified(|end| {
            let lasts = Instant::now() < *end;
            if lasts {
                *end = until;
            }
            lasts
        });
        if extended {
            self.metrics.set_leading_until(Some(until));
        }
        extended
    }
}

impl Drop for Tenure {
    fn drop(&mut self) {
        self.until.send_replace(Instant::now());
        self.metrics.set_leading_until(None);
    }
}

/// Runs the work, but never a step of it after the term. It then stays where it is, to be dropped by
/// whoever ends the term.
pub async fn while_leading(term: Term, work: impl Future<Output = ()>) {
    let mut work = pin!(work);
    std::future::poll_fn(|context| match term.still_leads() {
        true => work.as_mut().poll(context),
        false => Poll::Pending,
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

    fn tenure() -> Tenure {
        Tenure::begin(Instant::now() + SECOND, Metrics::new())
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_at_its_moment_without_anybody_ending_it() {
        let tenure = tenure();
        let term = tenure.term();
        advance(SECOND - Duration::from_millis(1)).await;
        assert!(term.still_leads());
        advance(Duration::from_millis(1)).await;
        assert!(!term.still_leads());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_term_lasts_longer_but_one_that_is_over_does_not_come_back() {
        let tenure = tenure();
        let term = tenure.term();
        assert!(tenure.extend(Instant::now() + 2 * SECOND));
        advance(SECOND).await;
        assert!(term.still_leads());
        advance(SECOND).await;
        assert!(!tenure.extend(Instant::now() + SECOND));
        assert!(!term.still_leads());
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_is_over_when_its_tenure_is_dropped() {
        let tenure = tenure();
        let term = tenure.term();
        drop(tenure);
        assert!(!term.still_leads());
    }

    #[tokio::test(start_paused = true)]
    async fn work_takes_no_step_after_its_term() {
        let tenure = tenure();
        let mut steps = 0;
        let endless = std::future::poll_fn(|_| {
            steps += 1;
            Poll::<()>::Pending
        });
        let mut work = Box::pin(while_leading(tenure.term(), endless));
        assert!(work.as_mut().now_or_never().is_none());
        advance(SECOND).await;
        assert!(work.as_mut().now_or_never().is_none());
        drop(work);
        assert_eq!(steps, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_gauge_tells_the_truth_even_before_anybody_ends_the_term() {
        let metrics = Metrics::new();
        let gauge = |value: u8| {
            let line = format!("\nacr_pull_webhook_leader {value}\n");
            metrics.encode().unwrap().contains(&line)
        };
        assert!(gauge(0));
        let tenure = Tenure::begin(Instant::now() + SECOND, metrics.clone());
        assert!(gauge(1));
        tenure.extend(Instant::now() + 2 * SECOND);
        advance(SECOND).await;
        assert!(gauge(1));
        advance(SECOND).await;
        assert!(gauge(0));
    }
}
