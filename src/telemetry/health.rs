//! Liveness and readiness, and the plain-HTTP listener that tells them.

use super::Metrics;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// What must still happen before requests may be sent here, and whether the API server is seen.
///
/// Unready means that another replica could answer better. A watch that fails after its first list makes no replica
/// unready: what was known answers most Pods, and a live look-up the others. Only a replica all of whose watches get no
/// answer may be alone with that.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// What must still happen.
    waiting: Mutex<BTreeSet<&'static str>>,
    /// Every watched place.
    watches: Mutex<HashMap<u64, Place>>,
    /// The next place's number.
    next: AtomicU64,
}

/// A watched place.
#[derive(Clone, Copy, Debug)]
struct Place {
    what: &'static str,
    /// Since when the API server has not answered for it.
    unanswered: Option<Instant>,
    /// Since when it cannot be watched.
    failing: Option<Instant>,
}

/// How a watch fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The API server answers that it will not serve this watch.
    Refused,
    /// The API server does not answer, or not properly.
    Unreachable,
}

/// One watched place, for as long as it is watched.
#[derive(Debug)]
pub struct WatchHealth {
    readiness: Readiness,
    number: u64,
    what: &'static str,
    metrics: Metrics,
    failing: bool,
}

/// How long a replica stays ready whose watches all get no answer: the API server may be on its way back.
const BENEFIT_OF_THE_DOUBT: Duration = Duration::from_secs(20);
/// What a replica waits for that gets no answer.
const API_SERVER: &str = "answer of the API server";

/// What the listener answers from.
#[derive(Clone)]
pub struct Health {
    readiness: Readiness,
    metrics: Metrics,
}

// === impl Readiness ===

impl Readiness {
    /// From now on not ready, until this is done.
    pub fn wait_for(&self, what: &'static str) {
        lock(&self.0.waiting).insert(what);
    }

    /// This is done.
    pub fn done(&self, what: &'static str) {
        lock(&self.0.waiting).remove(what);
    }

    /// What is still waited for.
    pub fn waiting(&self) -> Vec<&'static str> {
        let mut waiting: Vec<_> = lock(&self.0.waiting).iter().copied().collect();
        if self.is_alone() {
            waiting.push(API_SERVER);
        }
        waiting
    }

    /// One more watched place, which works until it says otherwise.
    pub fn watch(&self, what: &'static str, metrics: &Metrics) -> WatchHealth {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            what,
            unanswered: None,
            failing: None,
        };
        lock(&self.0.watches).insert(number, place);
        metrics.watch_failing(what, 0);
        WatchHealth {
            readiness: self.clone(),
            number,
            what,
            metrics: metrics.clone(),
            failing: false,
        }
    }

    /// Whether what this watches is known, and was seen in some place a moment ago.
    pub fn sees(&self, what: &'static str) -> bool {
        let watches = lock(&self.0.watches);
        let mut places = watches.values().filter(|place| place.what == what);
        !lock(&self.0.waiting).contains(what) && places.any(|place| !is_long(place.failing))
    }

    /// Whether no watch has had an answer for long.
    fn is_alone(&self) -> bool {
        let watches = lock(&self.0.watches);
        !watches.is_empty() && watches.values().all(|place| is_long(place.unanswered))
    }
}

fn is_long(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() >= BENEFIT_OF_THE_DOUBT)
}

// === impl WatchHealth ===

impl WatchHealth {
    /// The place cannot be watched just now.
    pub fn fails(&mut self, how: Outage) {
        if let Some(place) = lock(&self.readiness.0.watches).get_mut(&self.number) {
            let now = Instant::now();
            place.failing.get_or_insert(now);
            place.unanswered = match how {
                Outage::Refused => None,
                Outage::Unreachable => Some(place.unanswered.unwrap_or(now)),
            };
        }
        self.set_failing(true);
    }

    /// The place is watched.
    pub fn works(&mut self) {
        if let Some(place) = lock(&self.readiness.0.watches).get_mut(&self.number) {
            (place.unanswered, place.failing) = (None, None);
        }
        self.set_failing(false);
    }

    fn set_failing(&mut self, failing: bool) {
        if std::mem::replace(&mut self.failing, failing) != failing {
            self.metrics
                .watch_failing(self.what, if failing { 1 } else { -1 });
        }
    }
}

impl Drop for WatchHealth {
    fn drop(&mut self) {
        self.set_failing(false);
        lock(&self.readiness.0.watches).remove(&self.number);
    }
}

/// A panic elsewhere leaves these whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Health ===

impl Health {
    /// The routes over this state.
    pub fn new(readiness: Readiness, metrics: Metrics) -> Self {
        Self { readiness, metrics }
    }

    /// `/livez`, `/readyz` and `/metrics`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    let waiting = health.readiness.waiting();
    if waiting.is_empty() {
        "ok".into_response()
    } else {
        let body = format!("not ready: {}\n", waiting.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    }
}

async fn metrics(State(health): State<Health>) -> Response {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match health.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_watched_is_seen_once_it_is_listed_until_it_fails_in_all_places_for_long() {
        let (readiness, metrics) = (Readiness::default(), Metrics::new());
        assert!(!readiness.sees("one"));
        readiness.wait_for("one");
        let places = [readiness.watch("one", &metrics), readiness.watch("one", &metrics)];
        let mut other = readiness.watch("other", &metrics);
        assert!(!readiness.sees("one"));
        readiness.done("one");
        assert!(readiness.sees("one"));
        let [mut here, mut there] = places;
        for how in [Outage::Refused, Outage::Unreachable] {
            here.fails(how);
            other.fails(how);
            tokio::time::advance(BENEFIT_OF_THE_DOUBT).await;
            assert!(readiness.sees("one") && !readiness.sees("other"));
            there.fails(how);
            tokio::time::advance(BENEFIT_OF_THE_DOUBT - Duration::from_secs(1)).await;
            there.fails(how);
            assert!(readiness.sees("one"));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!readiness.sees("one"));
            there.works();
            assert!(readiness.sees("one"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_replica_all_of_whose_watches_get_no_answer_for_long_is_not_ready() {
        let (readiness, metrics) = (Readiness::default(), Metrics::new());
        let mut one = readiness.watch("one", &metrics);
        let mut other = readiness.watch("other", &metrics);
        one.fails(Outage::Unreachable);
        tokio::time::advance(BENEFIT_OF_THE_DOUBT).await;
        one.fails(Outage::Unreachable);
        assert!(readiness.waiting().is_empty());
        other.fails(Outage::Refused);
        tokio::time::advance(BENEFIT_OF_THE_DOUBT).await;
        assert!(readiness.waiting().is_empty(), "the API server answers");
        other.fails(Outage::Unreachable);
        tokio::time::advance(BENEFIT_OF_THE_DOUBT - Duration::from_secs(1)).await;
        assert!(readiness.waiting().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(readiness.waiting(), [API_SERVER]);
        other.works();
        assert!(readiness.waiting().is_empty());
        other.fails(Outage::Unreachable);
        tokio::time::advance(BENEFIT_OF_THE_DOUBT).await;
        assert_eq!(readiness.waiting(), [API_SERVER]);
        drop((one, other));
        assert!(
            readiness.waiting().is_empty(),
            "a watch that has ended does not count"
        );
    }
}
