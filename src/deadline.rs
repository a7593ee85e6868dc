//! The deadline of an admission request.

use jiff::SignedDuration;
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Instant, Sleep, sleep_until},
};

/// The API server's default for `timeoutSeconds`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The API server's upper bound for `timeoutSeconds`.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// The API server rounds the timeout up to whole seconds, so the actual timeout may be this much shorter.
const ROUNDING_MARGIN: Duration = Duration::from_secs(1);
/// With less time than this, a response cannot be sent.
const MIN_BUDGET: Duration = Duration::from_millis(500);

/// How much earlier an inner deadline ends. A busy runtime needs less time to run the inner task before the outer one.
const INNER_MARGIN: Duration = Duration::from_millis(100);

/// The instant before which the response must be sent.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of a request that arrived now with the query `?timeout=…`.
    pub fn from_query(timeout: Option<&str>) -> Self {
        let timeout = timeout
            .and_then(|text| duration(text).ok())
            .unwrap_or(DEFAULT_TIMEOUT)
            .min(MAX_TIMEOUT);
        Self::after(timeout.saturating_sub(ROUNDING_MARGIN).max(MIN_BUDGET))
    }

    /// A deadline `budget` from now.
    pub fn after(budget: Duration) -> Self {
        Self(Instant::now() + budget)
    }

    /// The earlier of this deadline and one `budget` from now.
    pub fn at_most(self, budget: Duration) -> Self {
        Self(self.0.min(Instant::now() + budget))
    }

    /// A deadline slightly before this one, so that an inner task can report the cause of a timeout before the outer
    /// deadline.
    pub fn inner(self) -> Self {
        Self(self.0 - INNER_MARGIN)
    }

    /// Runs `future` until the deadline; `None` if the deadline passes first.
    pub fn bound<F: Future>(self, future: F) -> Bound<F> {
        Bound {
            future,
            deadline: self.0,
            timer: None,
        }
    }
}

pin_project! {
    /// The future of [`Deadline::bound`]. Unlike `tokio::time::Timeout`, it has no timer before it has to wait: most
    /// admissions have their body and their decision at once.
    pub struct Bound<F> {
        #[pin]
        future: F,
        deadline: Instant,
        timer: Option<Pin<Box<Unconstrained<Sleep>>>>,
    }
}

impl<F: Future> Future for Bound<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Some(output));
        }
        let deadline = *this.deadline;
        // Unconstrained, because a future that always has more to do must not use up the timer's budget too.
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(unconstrained(sleep_until(deadline))));
        timer.as_mut().poll(context).map(|()| None)
    }
}

/// Parses a duration such as Go prints it: `10s`, `1m0s`, `1.5s`, `300ms`.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    // An API server sends whole seconds below a minute, for which a warm admission needs no general parser.
    if let Some(seconds) = text
        .strip_suffix('s')
        .and_then(|number| number.parse::<u8>().ok())
    {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let parsed = text.parse::<SignedDuration>().ok();
    parsed
        .and_then(|duration| duration.try_into().ok())
        .ok_or("not a duration such as 15s or 500ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_go_format_are_parsed() {
        for (text, millis) in [
            ("10s", 10_000),
            ("300s", 300_000),
            ("1m0s", 60_000),
            ("1.5s", 1_500),
            ("300ms", 300),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for bad in ["", "s", "10", "10x", "-5s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_leaves_a_second_for_the_api_servers_rounding() {
        let left = |query| Deadline::from_query(query).0 - Instant::now();
        assert_eq!(left(Some("5s")), Duration::from_secs(4));
        assert_eq!(left(None), Duration::from_secs(9));
        assert_eq!(left(Some("nonsense")), Duration::from_secs(9));
        assert_eq!(left(Some("10h")), Duration::from_secs(29));
        assert_eq!(left(Some("1s")), MIN_BUDGET);
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_ends_at_its_deadline_or_before() {
        let deadline = Deadline::after(Duration::from_secs(2));
        assert_eq!(deadline.bound(std::future::ready(1)).await, Some(1));
        let slow = async |seconds| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            seconds
        };
        assert_eq!(deadline.bound(slow(1)).await, Some(1));
        assert_eq!(deadline.bound(slow(2)).await, None);
        assert_eq!(Instant::now(), deadline.0);
        // The API server does not wait any more, but the answer is there.
        assert_eq!(deadline.bound(std::future::ready(1)).await, Some(1));
    }

    #[tokio::test]
    async fn a_future_that_always_has_more_to_do_ends_at_its_deadline() {
        let busy = async {
            loop {
                tokio::task::consume_budget().await;
            }
        };
        let bound = Deadline::after(Duration::from_millis(10)).bound(busy);
        let ended: Result<Option<()>, _> = tokio::time::timeout(Duration::from_secs(60), bound).await;
        assert_eq!(ended, Ok(None));
    }
}
