//! The record of requested and completed repairs, which limits their rate.

use super::{
    RepairRequest,
    refusal::{CHECK_INTERVAL, Refusal},
};
use crate::{names::NamespacedName, problem::Problem};
use jiff::Timestamp;
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The shortest time between two repairs of a pull secret. A kubelet reports a failure again with each attempt, and a
/// new token may not help: an image that the identity may not pull is refused with every token.
pub const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// The longest time between two repairs of a pull secret.
pub const MAX_INTERVAL: Duration = Duration::from_secs(600);

/// The requested repairs, and the record of past ones.
#[derive(Default)]
pub struct Repairs(Mutex<HashMap<NamespacedName, RepairState>>);

impl Repairs {
    /// Requests a repair, unless one is requested for a later failure.
    pub fn request(&self, key: NamespacedName, request: RepairRequest) {
        let mut all = self.0.lock();
        let state = all.entry(key).or_default();
        if state
            .request
            .as_ref()
            .is_none_or(|pending| pending.reported_at < request.reported_at)
        {
            state.request = Some(request);
        }
    }

    /// The pending request for this pull secret, and how long it must wait.
    pub fn pending(&self, key: &NamespacedName) -> Option<(RepairRequest, Duration)> {
        let all = self.0.lock();
        let state = all.get(key)?;
        let request = state.request.clone()?;
        Some((request, state.wait(Instant::now())))
    }

    /// Records that a Pod is read for this pull secret.
    pub fn record_pod_read(&self, key: &NamespacedName) {
        let mut all = self.0.lock();
        let state = all.entry(key.clone()).or_default();
        state.last_pod_read = Some(Instant::now());
        if let Some(request) = &mut state.request {
            request.pod_reads += 1;
        }
    }

    /// Removes the request if its failure was reported at this time or earlier.
    pub fn resolve(&self, key: &NamespacedName, reported_at: Timestamp) {
        if let Some(state) = self.0.lock().get_mut(key)
            && state
                .request
                .as_ref()
                .is_some_and(|request| request.reported_at <= reported_at)
        {
            state.request = None;
        }
    }

    /// How long the next repair of this pull secret must wait.
    pub fn wait(&self, key: &NamespacedName) -> Duration {
        let all = self.0.lock();
        all.get(key)
            .map_or(Duration::ZERO, |state| state.wait(Instant::now()))
    }

    /// Records a completed repair.
    pub fn record_repair(&self, key: &NamespacedName) {
        let mut all = self.0.lock();
        let state = all.entry(key.clone()).or_default();
        let now = Instant::now();
        // A repair long after the last one is unrelated to it.
        let previous = match state.last_repair {
            Some((last, previous)) if now - last <= MAX_INTERVAL * 2 => previous + 1,
            _ => 0,
        };
        state.last_repair = Some((now, previous));
    }

    /// Records that the last repair answered a refusal, and issued a token from these inputs.
    pub fn record_refused_inputs(&self, key: &NamespacedName, inputs_hash: Option<String>) {
        self.0.lock().entry(key.clone()).or_default().refused_inputs = inputs_hash;
    }

    /// Whether the token that a registry refuses now was issued from the same inputs because it had refused another one.
    pub fn was_useless(&self, key: &NamespacedName, inputs_hash: Option<&str>) -> bool {
        let all = self.0.lock();
        let state = all.get(key);
        state.is_some_and(|state| {
            let is_recent = state
                .last_repair
                .is_some_and(|(last, _)| last.elapsed() <= MAX_INTERVAL * 2);
            is_recent && inputs_hash.is_some() && state.refused_inputs.as_deref() == inputs_hash
        })
    }

    /// Sets or forgets the refusal that the status reports.
    pub fn set_refusal(&self, key: &NamespacedName, refusal: Option<Refusal>) {
        self.0.lock().entry(key.clone()).or_default().refusal = refusal;
    }

    /// What the registry's refusal of each token from these inputs is, if it has refused them.
    pub fn refusal(&self, key: &NamespacedName, inputs_hash: &str) -> Option<Problem> {
        let all = self.0.lock();
        let refusal = all.get(key)?.refusal.as_ref()?;
        (refusal.inputs_hash == inputs_hash).then(|| refusal.problem.clone())
    }

    /// The refusal that the status reports, and how long to wait before a Pod is read to check it.
    pub fn pending_check(&self, key: &NamespacedName) -> Option<(Refusal, Duration)> {
        let all = self.0.lock();
        let state = all.get(key)?;
        let refusal = state.refusal.clone()?;
        let wait = state.last_pod_read.map_or(Duration::ZERO, |last| {
            CHECK_INTERVAL.saturating_sub(last.elapsed())
        });
        Some((refusal, wait))
    }

    /// The Pod that was last read to restore this pull secret.
    pub fn last_pod(&self, key: &NamespacedName) -> Option<Arc<NamespacedName>> {
        self.0.lock().get(key)?.last_pod.clone()
    }

    pub fn set_last_pod(&self, key: &NamespacedName, pod: Arc<NamespacedName>) {
        self.0.lock().entry(key.clone()).or_default().last_pod = Some(pod);
    }

    /// Forgets a pull secret that does not exist and that no Pod names.
    pub fn forget(&self, key: &NamespacedName) {
        self.0.lock().remove(key);
    }
}

#[derive(Default)]
struct RepairState {
    request: Option<RepairRequest>,
    /// When the last repair was completed, and how many consecutive repairs preceded it.
    last_repair: Option<(Instant, u32)>,
    /// When a Pod was last read for this pull secret.
    last_pod_read: Option<Instant>,
    /// The inputs of the token that the last repair issued because a registry refused another one.
    refused_inputs: Option<String>,
    /// The refusal that the status reports.
    refusal: Option<Refusal>,
    /// The Pod that was last read to restore the pull secret.
    last_pod: Option<Arc<NamespacedName>>,
}

impl RepairState {
    fn wait(&self, now: Instant) -> Duration {
        let after_repair = self.last_repair.map_or(Duration::ZERO, |(last, previous)| {
            let interval = MIN_INTERVAL.saturating_mul(2_u32.saturating_pow(previous));
            interval.min(MAX_INTERVAL).saturating_sub(now - last)
        });
        let after_read = self
            .last_pod_read
            .map_or(Duration::ZERO, |last| MIN_INTERVAL.saturating_sub(now - last));
        after_repair.max(after_read)
    }
}
