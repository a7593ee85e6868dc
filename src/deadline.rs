//! The deadline of an admission request.

use futures::FutureExt;
use jiff::SignedDuration;
use std::time::Duration;
use tokio::time::Instant;

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

    /// Runs `future` until the deadline; `None` if the deadline passes first. An `async fn` would hold `future` twice, as
    /// its argument and as what it awaits.
    pub fn bound<F: Future>(self, future: F) -> impl Future<Output = Option<F::Output>> {
        tokio::time::timeout_at(self.0, future).map(Result::ok)
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
}
