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
use tokio::{sync::Notify, time::Instant};

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
    /// Rings when something has happened.
    done: Notify,
    /// Every watched place, and since when the API server has not answered for it.
    watches: Mutex<HashMap<u64, Option<Instant>>>,
    /// The next place's number.
    next: AtomicU64,
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
        self.0.done.notify_waiters();
    }

    /// Returns when nothing is waited for.
    pub async fn reached(&self) {
        loop {
            let done = self.0.done.notified();
            if self.waiting().is_empty() {
                return;
            }
            done.await;
        }
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
        lock(&self.0.watches).insert(number, None);
        metrics.watch_failing(what, 0);
        WatchHealth {
            readiness: self.clone(),
            number,
            what,
            metrics: metrics.clone(),
            failing: false,
        }
    }

    /// Whether no watch has had an answer for long.
    fn is_alone(&self) -> bool {
        let watches = lock(&self.0.watches);
        let long =
            |since: &Option<Instant>| since.is_some_and(|since| since.elapsed() >= BENEFIT_OF_THE_DOUBT);
        !watches.is_empty() && watches.values().all(long)
    }
}

// === impl WatchHealth ===

impl WatchHealth {
    /// The place cannot be watched just now.
    pub fn fails(&mut self, how: Outage) {
        if let Some(since) = lock(&self.readiness.0.watches).get_mut(&self.number) {
            *since = match how {
                Outage::Refused => None,
                Outage::Unreachable => Some(since.unwrap_or_else(Instant::now)),
            };
        }
        self.set_failing(true);
    }

    /// The place is watched.
    pub fn works(&mut self) {
        if let Some(since) = lock(&self.readiness.0.watches).get_mut(&self.number) {
            *since = None;
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

    #[tokio::test]
    async fn whoever_waits_for_readiness_is_woken_by_the_last_reason() {
        let readiness = Readiness::default();
        for what in ["one", "other"] {
            readiness.wait_for(what);
        }
        let reached = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.reached().await }
        });
        readiness.done("one");
        tokio::task::yield_now().await;
        assert!(!reached.is_finished());
        readiness.done("other");
        reached.await.unwrap();
        readiness.reached().await;
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
