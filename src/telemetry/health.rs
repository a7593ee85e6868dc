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
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// What must still happen before requests may be sent here, and since when.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Reasons>);

#[derive(Debug, Default)]
struct Reasons {
    waiting: Mutex<BTreeMap<&'static str, Instant>>,
    /// Rings when one is gone.
    gone: Notify,
}

/// How long a replica is believed that was ready and has lost sight of something: answers by what it knew are better
/// than none, for all replicas may see as little.
const BENEFIT_OF_THE_DOUBT: Duration = Duration::from_secs(20);

/// What the listener answers from.
#[derive(Clone)]
pub struct Health {
    readiness: Readiness,
    metrics: Metrics,
}

// === impl Readiness ===

impl Readiness {
    /// From now on not ready, for this reason.
    pub fn wait_for(&self, what: &'static str) {
        self.lock().insert(what, Instant::now());
    }

    /// Not ready for this reason, if it lasts.
    pub fn doubt(&self, what: &'static str) {
        let then = Instant::now() + BENEFIT_OF_THE_DOUBT;
        self.lock().entry(what).or_insert(then);
    }

    /// The reason is gone.
    pub fn done(&self, what: &'static str) {
        self.lock().remove(what);
        self.0.gone.notify_waiters();
    }

    /// Returns when there is no reason left.
    pub async fn reached(&self) {
        loop {
            let gone = self.0.gone.notified();
            if self.waiting().is_empty() {
                return;
            }
            gone.await;
        }
    }

    /// The reasons that remain.
    pub fn waiting(&self) -> Vec<&'static str> {
        let now = Instant::now();
        let waiting = self.lock();
        let serious = waiting.iter().filter(|(_, since)| **since <= now);
        serious.map(|(what, _)| *what).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    async fn a_doubt_counts_once_it_lasts_and_a_lack_at_once() {
        let readiness = Readiness::default();
        readiness.wait_for("first list");
        readiness.doubt("first list");
        assert_eq!(readiness.waiting(), ["first list"]);
        readiness.done("first list");
        readiness.doubt("watch");
        tokio::time::advance(BENEFIT_OF_THE_DOUBT - Duration::from_secs(1)).await;
        readiness.doubt("watch");
        assert!(readiness.waiting().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(readiness.waiting(), ["watch"]);
        readiness.done("watch");
        assert!(readiness.waiting().is_empty());
    }
}
