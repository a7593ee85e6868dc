//! The deadline of an admission request.

use std::{str::FromStr, time::Duration};
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
            .and_then(|t| t.parse::<GoDuration>().ok())
            .map_or(DEFAULT_TIMEOUT, |d| d.0)
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

    /// A deadline slightly before this one, so that an inner task can report the cause of a timeout before the outer deadline.
    pub fn inner(self) -> Self {
        Self(self.0 - INNER_MARGIN)
    }

    /// Runs `future` until the deadline; `None` if the deadline passes first.
    pub async fn bound<F: Future>(self, future: F) -> Option<F::Output> {
        tokio::time::timeout_at(self.0, future).await.ok()
    }
}

/// A duration as Go prints it (`10s`, `1m0s`, `1.5s`, `300ms`).
struct GoDuration(Duration);

impl FromStr for GoDuration {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut rest = text;
        let mut total = 0.0;
        if rest.is_empty() {
            return Err(());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(())?;
            let value: f64 = rest[..digits].parse().map_err(|_| ())?;
            rest = &rest[digits..];
            let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
            total += value
                * match &rest[..unit] {
                    "h" => 3600.0,
                    "m" => 60.0,
                    "s" => 1.0,
                    "ms" => 1e-3,
                    "us" | "µs" => 1e-6,
                    "ns" => 1e-9,
                    _ => return Err(()),
                };
            rest = &rest[unit..];
        }
        Duration::try_from_secs_f64(total).map(GoDuration).map_err(|_| ())
    }
}

/// Parses the duration in a flag.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    match text.parse() {
        Ok(GoDuration(duration)) => Ok(duration),
        Err(()) => Err("not a duration such as 15s or 500ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_go_format_are_parsed() {
        for (text, millis) in [("10s", 10_000), ("1m0s", 60_000), ("1.5s", 1_500), ("300ms", 300)] {
            assert_eq!(
                text.parse::<GoDuration>().unwrap().0,
                Duration::from_millis(millis)
            );
        }
        for bad in ["", "s", "10", "10x", "-5s", "99999999999999999999h"] {
            assert!(bad.parse::<GoDuration>().is_err(), "{bad}");
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
