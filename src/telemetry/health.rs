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
    collections::{BTreeMap, BTreeSet, HashMap},
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
    /// The reasons that are set, by the numbers of their handles.
    unready_reasons: Mutex<BTreeMap<u64, &'static str>>,
    /// The state of the watch of each scope, by the numbers of their handles.
    scopes: Mutex<HashMap<u64, ScopeState>>,
    next_number: AtomicU64,
}

/// The state of the watch of one scope.
#[derive(Clone, Copy, Debug)]
struct ScopeState {
    /// The number and the name of the watch.
    watch: u64,
    name: &'static str,
    unreachable_since: Option<Instant>,
    failing_since: Option<Instant>,
    /// Whether the API server does not serve the kind that is watched.
    is_kind_missing: bool,
}

impl Readiness {
    /// Makes the replica unready for this reason, until the handle clears it.
    pub fn unready(&self, reason: &'static str) -> UnreadyReason {
        let reason = UnreadyReason {
            readiness: self.clone(),
            number: self.next_number(),
            text: reason,
        };
        reason.set();
        reason
    }

    /// Why the replica is unready, without duplicates. Empty if it is ready.
    pub fn unready_reasons(&self) -> Vec<&'static str> {
        let mut reasons: BTreeSet<_> = self.0.unready_reasons.lock().values().copied().collect();
        if self.is_cut_off() {
            reasons.insert(API_SERVER_UNREACHABLE);
        }
        reasons.into_iter().collect()
    }

    /// The watches whose kind is not installed, without duplicates. They do not make a replica unready, because no other
    /// replica would be better.
    pub fn watches_without_kind(&self) -> Vec<&'static str> {
        let scopes = self.0.scopes.lock();
        let names: BTreeSet<_> = scopes
            .values()
            .filter_map(|scope| scope.is_kind_missing.then_some(scope.name))
            .collect();
        names.into_iter().collect()
    }

    /// Registers a watch, whose scopes register themselves.
    pub fn register_watch(&self, name: &'static str, metrics: &Metrics) -> WatchHealth {
        metrics.add_failing_watches(name, 0);
        WatchHealth {
            readiness: self.clone(),
            number: self.next_number(),
            name,
            metrics: metrics.clone(),
        }
    }

    /// Whether all watches have failed to reach the API server for longer than is tolerated.
    fn is_cut_off(&self) -> bool {
        let scopes = self.0.scopes.lock();
        !scopes.is_empty()
            && scopes
                .values()
                .all(|scope| exceeds_tolerance(scope.unreachable_since))
    }

    fn next_number(&self) -> u64 {
        self.0.next_number.fetch_add(1, Ordering::Relaxed)
    }
}

/// A reason why the replica is unready, which is set when the handle is created. Two handles are independent, even if
/// their texts are equal. Dropping a handle leaves its reason as it is: a task that ends before it clears its reason
/// must not make the replica ready.
#[derive(Debug)]
pub struct UnreadyReason {
    readiness: Readiness,
    number: u64,
    text: &'static str,
}

impl UnreadyReason {
    /// Makes the replica unready for this reason.
    pub fn set(&self) {
        self.readiness
            .0
            .unready_reasons
            .lock()
            .insert(self.number, self.text);
    }

    /// Removes this reason.
    pub fn clear(&self) {
        self.readiness.0.unready_reasons.lock().remove(&self.number);
    }

    /// Whether this reason makes the replica unready.
    pub fn is_set(&self) -> bool {
        self.readiness.0.unready_reasons.lock().contains_key(&self.number)
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

/// The state of a watch in all its scopes. Clones share it.
#[derive(Clone, Debug)]
pub struct WatchHealth {
    readiness: Readiness,
    number: u64,
    name: &'static str,
    metrics: Metrics,
}

impl WatchHealth {
    /// Registers a scope of the watch, which counts as working until it reports a failure.
    pub fn register_scope(&self) -> ScopeHealth {
        let number = self.readiness.next_number();
        let state = ScopeState {
            watch: self.number,
            name: self.name,
            unreachable_since: None,
            failing_since: None,
            is_kind_missing: false,
        };
        self.readiness.0.scopes.lock().insert(number, state);
        ScopeHealth {
            watch: self.clone(),
            number,
            failing: false,
        }
    }

    /// Whether the watch works in at least one scope, or failed there only recently.
    pub fn is_current(&self) -> bool {
        let scopes = self.readiness.0.scopes.lock();
        let mut scopes = scopes.values().filter(|scope| scope.watch == self.number);
        scopes.any(|scope| !exceeds_tolerance(scope.failing_since))
    }
}

/// Reports the state of the watch of one scope. Dropping it removes the scope.
#[derive(Debug)]
pub struct ScopeHealth {
    watch: WatchHealth,
    number: u64,
    failing: bool,
}

impl ScopeHealth {
    /// Reports that the watch fails.
    pub fn set_failing(&mut self, outage: Outage) {
        if let Some(scope) = self.watch.readiness.0.scopes.lock().get_mut(&self.number) {
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
        if let Some(scope) = self.watch.readiness.0.scopes.lock().get_mut(&self.number) {
            scope.unreachable_since = None;
            scope.failing_since = None;
            scope.is_kind_missing = false;
        }
        self.update_metric(false);
    }

    /// Reports whether the API server does not serve the kind, and returns what was reported before.
    pub fn set_kind_missing(&self, is_missing: bool) -> bool {
        let mut scopes = self.watch.readiness.0.scopes.lock();
        let scope = scopes.get_mut(&self.number);
        scope.is_some_and(|scope| std::mem::replace(&mut scope.is_kind_missing, is_missing))
    }

    fn update_metric(&mut self, failing: bool) {
        if std::mem::replace(&mut self.failing, failing) != failing {
            let change = if failing { 1 } else { -1 };
            self.watch.metrics.add_failing_watches(self.watch.name, change);
        }
    }
}

impl Drop for ScopeHealth {
    fn drop(&mut self) {
        self.update_metric(false);
        self.watch.readiness.0.scopes.lock().remove(&self.number);
    }
}

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
    let without_kind = health.readiness.watches_without_kind();
    let missing = match without_kind.as_slice() {
        [] => String::new(),
        names => format!(" (CustomResourceDefinition not installed: {})", names.join(", ")),
    };
    if reasons.is_empty() {
        format!("ok{missing}").into_response()
    } else {
        let body = format!("not ready: {}{missing}\n", reasons.join(", "));
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
mod tests;
