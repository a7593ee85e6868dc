//! Metrics in the OpenMetrics text format, all under the prefix `acr_pull_webhook_`.

mod labels;
mod overview;
mod reference;

pub use labels::{AdmissionOutcome, PullSecretLabels, Ready, RenewalOutcome, UpstreamCall};
pub use overview::Overview;
pub use reference::reference;

use crate::problem::Problem;
use jiff::{SignedDuration, Timestamp};
use labels::{AdmissionLabels, CallLabels, CallResultLabels, OutcomeLabels, RenewalLabels, WatchLabels};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// Histogram buckets in seconds, from an answer without upstream calls to the API server's longest webhook time-out.
const LATENCY_BUCKETS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];
/// The value of the label `reason` where there is no problem.
const OK: &str = "Ok";

/// The series that count and time the admissions of an outcome and a reason.
type AdmissionSeries = (Counter, Histogram);

/// The metrics. Clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    admissions: Family<AdmissionLabels, Counter>,
    admission_seconds: Family<OutcomeLabels, Histogram>,
    /// The series of patched Pods, which most admissions need. A look-up in the families would hash the labels and take a
    /// lock for each admission, twice.
    patched: Arc<OnceLock<AdmissionSeries>>,
    upstream_calls: Family<CallResultLabels, Counter>,
    upstream_call_seconds: Family<CallLabels, Histogram>,
    issuing: Gauge,
    waiting_calls: Gauge,
    renewals: Family<RenewalLabels, Counter>,
    collected: Counter,
    upkeep_panics: Counter,
    registration_repairs: Counter,
    pull_secrets: Family<PullSecretLabels, Gauge>,
    /// NaN if unknown.
    first_expiration: Gauge<f64, AtomicU64>,
    reconciliations_waiting: Gauge,
    reconciliations_running: Gauge,
    azure_clock_ahead: Gauge<f64, AtomicU64>,
    certificate_start: Gauge,
    certificate_expiration: Gauge,
    leader: Gauge,
    failing_watches: Family<WatchLabels, Gauge>,
    unreadable_objects: Family<WatchLabels, Gauge>,
    leading_until: Arc<Mutex<Option<tokio::time::Instant>>>,
}

impl Metrics {
    /// Metrics without any samples.
    pub fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(LATENCY_BUCKETS);
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("acr_pull_webhook"))),
            admissions: Family::default(),
            admission_seconds: Family::new_with_constructor(histogram),
            patched: Arc::default(),
            upstream_calls: Family::default(),
            upstream_call_seconds: Family::new_with_constructor(histogram),
            issuing: Gauge::default(),
            waiting_calls: Gauge::default(),
            renewals: Family::default(),
            collected: Counter::default(),
            upkeep_panics: Counter::default(),
            registration_repairs: Counter::default(),
            pull_secrets: Family::default(),
            first_expiration: Gauge::default(),
            reconciliations_waiting: Gauge::default(),
            reconciliations_running: Gauge::default(),
            azure_clock_ahead: Gauge::default(),
            certificate_start: Gauge::default(),
            certificate_expiration: Gauge::default(),
            leader: Gauge::default(),
            failing_watches: Family::default(),
            unreadable_objects: Family::default(),
            leading_until: Arc::default(),
        };
        let mut registry = metrics.registry.lock();
        metrics.register_admission(&mut registry);
        metrics.register_upkeep(&mut registry);
        metrics.register_process(&mut registry);
        drop(registry);
        metrics.set_overview(&Overview::default());
        metrics
    }

    /// Admissions, and the calls that an admission or a renewal makes.
    fn register_admission(&self, registry: &mut Registry) {
        registry.register(
            "admissions",
            "Admission requests answered, by outcome and reason",
            self.admissions.clone(),
        );
        registry.register_with_unit(
            "admission_duration",
            "Time from an admission request to its response",
            Unit::Seconds,
            self.admission_seconds.clone(),
        );
        registry.register(
            "upstream_requests",
            "Calls made to obtain registry tokens, by hop and reason",
            self.upstream_calls.clone(),
        );
        registry.register_with_unit(
            "upstream_request_duration",
            "Duration of the calls made to obtain registry tokens, by hop",
            Unit::Seconds,
            self.upstream_call_seconds.clone(),
        );
        registry.register(
            "pull_secrets_issuing",
            "Token requests in flight, including those that wait for their turn",
            self.issuing.clone(),
        );
        registry.register(
            "calls_waiting",
            "Calls to obtain registry tokens that wait for their turn at a host or at the API server",
            self.waiting_calls.clone(),
        );
        registry.register_with_unit(
            "azure_clock_ahead",
            "How far Azure's clock was ahead of this machine's at its last response; negative if it was behind",
            Unit::Seconds,
            self.azure_clock_ahead.clone(),
        );
    }

    /// The leader's work.
    fn register_upkeep(&self, registry: &mut Registry) {
        registry.register(
            "renewals",
            "Renewals and repairs of pull secrets by the leader, by outcome and reason",
            self.renewals.clone(),
        );
        registry.register(
            "pull_secrets_collected",
            "Pull secrets that the leader deleted because no Pod used them",
            self.collected.clone(),
        );
        registry.register(
            "upkeep_panics",
            "Panics of the leader while it reconciled a pull secret; each is a bug",
            self.upkeep_panics.clone(),
        );
        registry.register(
            "pull_secrets",
            "ACRPullSecrets by the status of Ready, the reason of the condition that is not True, and whether Pods use them; only on the leader",
            self.pull_secrets.clone(),
        );
        registry.register_with_unit(
            "pull_secrets_first_expiration_timestamp",
            "Unix time of the earliest token expiration among ready pull secrets in use; NaN if unknown, as on replicas that do not lead",
            Unit::Seconds,
            self.first_expiration.clone(),
        );
        registry.register(
            "reconciliations_waiting",
            "Pull secrets that are due for the leader's work and wait for their turn; 0 on replicas that do not lead",
            self.reconciliations_waiting.clone(),
        );
        registry.register(
            "reconciliations_running",
            "Pull secrets that the leader works on; 0 on replicas that do not lead",
            self.reconciliations_running.clone(),
        );
        registry.register(
            "leader",
            "1 on the replica that leads, 0 on the others",
            self.leader.clone(),
        );
    }

    /// The watches and the serving certificate.
    fn register_process(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "certificate_start_timestamp",
            "Unix time from which on the serving certificate is valid",
            Unit::Seconds,
            self.certificate_start.clone(),
        );
        registry.register_with_unit(
            "certificate_expiration_timestamp",
            "Unix time at which the serving certificate expires",
            Unit::Seconds,
            self.certificate_expiration.clone(),
        );
        registry.register(
            "registration_repairs",
            "Times that another field manager changed caBundle or path of the MutatingWebhookConfiguration and this replica wrote them again",
            self.registration_repairs.clone(),
        );
        registry.register(
            "watches_failing",
            "Scopes in which this watch fails; a scope is a namespace of --namespaces, or the cluster",
            self.failing_watches.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects of this watch that cannot be decoded and are skipped",
            self.unreadable_objects.clone(),
        );
    }

    /// Counts one answered admission request.
    pub fn count_admission(&self, outcome: AdmissionOutcome, problem: Option<&Problem>, took: Duration) {
        let count = |(admissions, seconds): &AdmissionSeries| {
            admissions.inc();
            seconds.observe(took.as_secs_f64());
        };
        let series = || self.admission_series(outcome, problem);
        match (outcome, problem) {
            (AdmissionOutcome::Patched, None) => count(self.patched.get_or_init(series)),
            _ => count(&series()),
        }
    }

    fn admission_series(&self, outcome: AdmissionOutcome, problem: Option<&Problem>) -> AdmissionSeries {
        let reason = problem.map_or(OK, |p| p.reason.as_str());
        let admissions = self
            .admissions
            .get_or_create(&AdmissionLabels { outcome, reason });
        let seconds = self.admission_seconds.get_or_create(&OutcomeLabels { outcome });
        (admissions.clone(), seconds.clone())
    }

    /// Runs one call, counting and timing it.
    pub async fn upstream_call<T>(
        &self,
        hop: UpstreamCall,
        call: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        let result = call.await;
        let reason = result.as_ref().err().map_or(OK, |p| p.reason.as_str());
        self.upstream_calls
            .get_or_create(&CallResultLabels { hop, reason })
            .inc();
        self.upstream_call_seconds
            .get_or_create(&CallLabels { hop })
            .observe(start.elapsed().as_secs_f64());
        result
    }

    /// Counts a renewal or repair, with the outcome `success` if it did not fail.
    pub fn count_renewal(&self, success: RenewalOutcome, result: &Result<(), Problem>) {
        let (outcome, reason) = match result {
            Ok(()) => (success, OK),
            Err(problem) => (RenewalOutcome::Failed, problem.reason.as_str()),
        };
        self.renewals
            .get_or_create(&RenewalLabels { outcome, reason })
            .inc();
    }

    /// Sets from when until when the serving certificate is valid.
    pub fn set_certificate_validity(&self, start: Timestamp, expiration: Timestamp) {
        self.certificate_start.set(start.as_second());
        self.certificate_expiration.set(expiration.as_second());
    }

    /// Sets how far Azure's clock is ahead of the local clock.
    pub fn set_azure_clock_ahead(&self, ahead: SignedDuration) {
        self.azure_clock_ahead.set(ahead.as_secs_f64());
    }

    /// Adds to the number of scopes in which the watch fails. The change may be negative.
    pub fn add_failing_watches(&self, watch: &'static str, change: i64) {
        self.failing_watches
            .get_or_create(&WatchLabels::new(watch))
            .inc_by(change);
    }

    /// Sets how many objects of the watch cannot be decoded.
    pub fn set_unreadable_objects(&self, watch: &'static str, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.unreadable_objects
            .get_or_create(&WatchLabels::new(watch))
            .set(number);
    }

    /// Counts a pull secret that was deleted because it was unused.
    pub fn count_collected(&self) {
        self.collected.inc();
    }

    /// Counts a panic in the upkeep of one pull secret.
    pub fn count_upkeep_panic(&self) {
        self.upkeep_panics.inc();
    }

    /// Counts that the registration was repaired after a change by another field manager.
    pub fn count_registration_repair(&self) {
        self.registration_repairs.inc();
    }

    /// Counts a token request as in flight until the guard is dropped.
    pub fn track_issuing(&self) -> IssuingGuard {
        self.issuing.inc();
        IssuingGuard(self.issuing.clone())
    }

    /// Counts a call as waiting for its turn until the guard is dropped.
    pub fn track_waiting_call(&self) -> WaitingGuard {
        self.waiting_calls.inc();
        WaitingGuard(self.waiting_calls.clone())
    }

    /// Sets until when this replica leads; `None` if it does not lead.
    pub fn set_leading_until(&self, until: Option<tokio::time::Instant>) {
        *self.leading_until.lock() = until;
    }

    /// The response body of `/metrics`.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        // Computed from the clock: a suspended process may be scraped before it notices that its lease has expired.
        let until = *self.leading_until.lock();
        let leads = until.is_some_and(|until| tokio::time::Instant::now() < until);
        self.leader.set(leads.into());
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts one token request as in flight until it is dropped.
pub struct IssuingGuard(Gauge);

impl Drop for IssuingGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Counts one call as waiting for its turn until it is dropped.
pub struct WaitingGuard(Gauge);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
