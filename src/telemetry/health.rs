//! Liveness and readiness, and the plain-HTTP routes that report them.

use super::Metrics;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long a replica stays ready while none of its watches reaches the API server, which may be restarting.
const OUTAGE_TOLERANCE: Duration = Duration::from_secs(20);
/// The reason of a replica that does not reach the API server.
const API_SERVER_UNREACHABLE: &str = "API server unreachable";

/// Whether this replica is ready for requests, and how its watches work.
///
/// A replica is unready if another one is likely to answer better. A watch that fails after its first list makes no
/// replica unready: most Pods are admitted with the objects already known, and the others after a live read. A replica
/// whose watches all fail to reach the API server may be the only one that is cut off.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    unready_reasons: Mutex<BTreeSet<&'static str>>,
    /// The watch of each scope, by number.
    watches: Mutex<HashMap<u64, WatchState>>,
    next_number: AtomicU64,
}

/// The state of the watch of one scope.
#[derive(Clone, Copy, Debug)]
struct WatchState {
    name: &'static str,
    unreachable_since: Option<Instant>,
    failing_since: Option<Instant>,
}

impl Readiness {
    /// Makes the replica unready for this reason, until [`Self::clear`] is called with it.
    pub fn set_unready(&self, reason: &'static str) {
        self.0.unready_reasons.lock().insert(reason);
    }

    /// Removes this reason.
    pub fn clear(&self, reason: &'static str) {
        self.0.unready_reasons.lock().remove(reason);
    }

    /// Why the replica is unready. Empty if it is ready.
    pub fn unready_reasons(&self) -> Vec<&'static str> {
        let mut reasons: Vec<_> = self.0.unready_reasons.lock().iter().copied().collect();
        if self.is_cut_off() {
            reasons.push(API_SERVER_UNREACHABLE);
        }
        reasons
    }

    /// Registers the watch of one scope, which counts as working until it reports a failure.
    pub fn register_watch(&self, name: &'static str, metrics: &Metrics) -> WatchHealth {
        let number = self.0.next_number.fetch_add(1, Ordering::Relaxed);
        let state = WatchState {
            name,
            unreachable_since: None,
            failing_since: None,
        };
        self.0.watches.lock().insert(number, state);
        metrics.add_failing_watches(name, 0);
        WatchHealth {
            readiness: self.clone(),
            number,
            name,
            metrics: metrics.clone(),
            failing: false,
        }
    }

    /// Whether this watch has been listed, and works in at least one scope or failed there only recently.
    pub fn watch_is_current(&self, name: &'static str) -> bool {
        let watches = self.0.watches.lock();
        let mut scopes = watches.values().filter(|scope| scope.name == name);
        !self.0.unready_reasons.lock().contains(name)
            && scopes.any(|scope| !exceeds_tolerance(scope.failing_since))
    }

    /// Whether all watches have failed to reach the API server for longer than is tolerated.
    fn is_cut_off(&self) -> bool {
        let watches = self.0.watches.lock();
        !watches.is_empty()
            && watches
                .values()
                .all(|scope| exceeds_tolerance(scope.unreachable_since))
    }
}

fn exceeds_tolerance(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() >= OUTAGE_TOLERANCE)
}

/// How a watch fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// The API server refuses this watch.
    Refused,
    /// The API server does not answer, or answers with a server error.
    Unreachable,
}

/// Reports the state of the watch of one scope. Dropping it removes the watch.
#[derive(Debug)]
pub struct WatchHealth {
    readiness: Readiness,
    number: u64,
    name: &'static str,
    metrics: Metrics,
    failing: bool,
}

impl WatchHealth {
    /// Reports that the watch fails.
    pub fn set_failing(&mut self, outage: Outage) {
        if let Some(scope) = self.readiness.0.watches.lock().get_mut(&self.number) {
            let now = Instant::now();
            scope.failing_since.get_or_insert(now);
            scope.unreachable_since = match outage {
                Outage::Refused => None,
                Outage::Unreachable => Some(scope.unreachable_since.unwrap_or(now)),
            };
        }
        self.update_metric(true);
    }

    /// Reports that the watch works.
    pub fn set_working(&mut self) {
        if let Some(scope) = self.readiness.0.watches.lock().get_mut(&self.number) {
            scope.unreachable_since = None;
            scope.failing_since = None;
        }
        self.update_metric(false);
    }

    fn update_metric(&mut self, failing: bool) {
        if std::mem::replace(&mut self.failing, failing) != failing {
            self.metrics
                .add_failing_watches(self.name, if failing { 1 } else { -1 });
        }
    }
}

impl Drop for WatchHealth {
    fn drop(&mut self) {
        self.update_metric(false);
        self.readiness.0.watches.lock().remove(&self.number);
    }
}

/// Ignores poisoning: each update is a single step, so a panic leaves no partial update.
/// The routes of the admin listener.
#[derive(Clone)]
pub struct Health {
    readiness: Readiness,
    metrics: Metrics,
}

impl Health {
    /// Serves this state.
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
    let reasons = health.readiness.unready_reasons();
    if reasons.is_empty() {
        "ok".into_response()
    } else {
        let body = format!("not ready: {}\n", reasons.join(", "));
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
    async fn a_watch_is_current_until_all_its_scopes_fail_beyond_the_tolerance() {
        let readiness = Readiness::default();
        let metrics = Metrics::new();
        assert!(!readiness.watch_is_current("one"));
        readiness.set_unready("one");
        let scopes = [
            readiness.register_watch("one", &metrics),
            readiness.register_watch("one", &metrics),
        ];
        let mut other = readiness.register_watch("other", &metrics);
        assert!(!readiness.watch_is_current("one"));
        readiness.clear("one");
        assert!(readiness.watch_is_current("one"));
        let [mut first, mut second] = scopes;
        for outage in [Outage::Refused, Outage::Unreachable] {
            first.set_failing(outage);
            other.set_failing(outage);
            tokio::time::advance(OUTAGE_TOLERANCE).await;
            assert!(readiness.watch_is_current("one") && !readiness.watch_is_current("other"));
            second.set_failing(outage);
            tokio::time::advance(OUTAGE_TOLERANCE - Duration::from_secs(1)).await;
            second.set_failing(outage);
            assert!(readiness.watch_is_current("one"));
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(!readiness.watch_is_current("one"));
            second.set_working();
            assert!(readiness.watch_is_current("one"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_is_unready_once_all_its_watches_are_unreachable_for_long() {
        let readiness = Readiness::default();
        let metrics = Metrics::new();
        let mut one = readiness.register_watch("one", &metrics);
        let mut other = readiness.register_watch("other", &metrics);
        one.set_failing(Outage::Unreachable);
        tokio::time::advance(OUTAGE_TOLERANCE).await;
        one.set_failing(Outage::Unreachable);
        assert!(readiness.unready_reasons().is_empty());
        other.set_failing(Outage::Refused);
        tokio::time::advance(OUTAGE_TOLERANCE).await;
        assert!(readiness.unready_reasons().is_empty(), "the API server answers");
        other.set_failing(Outage::Unreachable);
        tokio::time::advance(OUTAGE_TOLERANCE - Duration::from_secs(1)).await;
        assert!(readiness.unready_reasons().is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(readiness.unready_reasons(), [API_SERVER_UNREACHABLE]);
        other.set_working();
        assert!(readiness.unready_reasons().is_empty());
        other.set_failing(Outage::Unreachable);
        tokio::time::advance(OUTAGE_TOLERANCE).await;
        assert_eq!(readiness.unready_reasons(), [API_SERVER_UNREACHABLE]);
        drop((one, other));
        assert!(
            readiness.unready_reasons().is_empty(),
            "a dropped watch does not count"
        );
    }
}
