//! The one deadline of an admission request.

use std::{str::FromStr, time::Duration};
use tokio::time::Instant;

/// What the API server uses when a webhook configuration sets no `timeoutSeconds`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// The API server's own bound on `timeoutSeconds`.
const MAX_TIMEOUT: Duration = Duration::from_secs(30);
/// The API server rounds the timeout up to whole seconds, so the true one may be this much shorter.
const MARGIN: Duration = Duration::from_secs(1);
/// Below this an answer cannot be sent in any case.
const MIN_BUDGET: Duration = Duration::from_millis(500);

/// More than a busy runtime needs to run what waits inside before what waits outside.
const INNER: Duration = Duration::from_millis(100);

/// The moment before which the answer must have left.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of a request that arrived now with the query `?timeout=…`.
    pub fn from_query(timeout: Option<&str>) -> Self {
        let timeout = timeout
            .and_then(|t| t.parse::<GoDuration>().ok())
            .map_or(DEFAULT_TIMEOUT, |d| d.0)
            .min(MAX_TIMEOUT);
        Self::after(timeout.saturating_sub(MARGIN).max(MIN_BUDGET))
    }

    /// A deadline this far from now.
    pub fn after(budget: Duration) -> Self {
        Self(Instant::now() + budget)
    }

    /// This deadline, or an earlier one so far from now.
    pub fn at_most(self, budget: Duration) -> Self {
        Self(self.0.min(Instant::now() + budget))
    }

    /// A deadline a little before this one: whoever has it knows why there is no answer, and is heard in time.
    pub fn inner(self) -> Self {
        Self(self.0 - INNER)
    }

    /// Runs `future` until the deadline; `None` when that comes first.
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

/// A duration that a flag gives.
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
    fn go_durations_are_read_as_the_api_server_writes_them() {
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
    async fn the_deadline_leaves_a_second_for_the_rounding_of_the_api_server() {
        let left = |query| Deadline::from_query(query).0 - Instant::now();
        assert_eq!(left(Some("5s")), Duration::from_secs(4));
        assert_eq!(left(None), Duration::from_secs(9));
        assert_eq!(left(Some("nonsense")), Duration::from_secs(9));
        assert_eq!(left(Some("10h")), Duration::from_secs(29));
        assert_eq!(left(Some("1s")), MIN_BUDGET);
    }
}
