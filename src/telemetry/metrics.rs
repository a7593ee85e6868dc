//! Metrics in the OpenMetrics text format, all under the prefix `acr_pull_webhook_`.

use crate::problem::Problem;
use jiff::{SignedDuration, Timestamp};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// The metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    admissions: Family<AdmissionLabels, Counter>,
    admission_seconds: Family<OutcomeLabels, Histogram>,
    hops: Family<HopLabels, Counter>,
    hop_seconds: Family<HopOnly, Histogram>,
    issuing: Gauge,
    waiting: Gauge,
    renewals: Family<RenewalLabels, Counter>,
    collected: Counter,
    upkeep_panics: Counter,
    /// Not a number where nothing is known.
    first_expiration: Gauge<f64, AtomicU64>,
    azure_clock_ahead: Gauge<f64, AtomicU64>,
    certificate_ends: Gauge,
    leader: Gauge,
    watches_failing: Family<WatchLabels, Gauge>,
    unreadable_objects: Family<WatchLabels, Gauge>,
    leads_until: Arc<Mutex<Option<tokio::time::Instant>>>,
}

/// Counts as one pull secret being issued for as long as it lives, however that ends.
pub struct Issuing(Gauge);

/// Counts as one that waits in place of being issued for as long as it lives.
pub struct Waiting {
    waiting: Gauge,
    issuing: Gauge,
}

/// A call on the way to a pull token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Hop {
    /// Our API server's TokenRequest.
    TokenRequest,
    /// Entra's token endpoint.
    Entra,
    /// The machine's endpoint for managed identities.
    ManagedIdentity,
    /// The registry's `/oauth2/exchange`.
    RegistryExchange,
    /// The registry's `/oauth2/token`.
    RegistryToken,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AdmissionLabels {
    outcome: &'static str,
    reason: &'static str,
}

/// What became of a pull secret that it was time to make anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Renewal {
    /// It has a new token.
    Renewed,
    /// The same, because a kubelet complained or its `ACRPullSecret` was deleted.
    Repaired,
    /// No Pod agreed that it needs a new token.
    NothingToDo,
    /// It has not.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    outcome: Renewal,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HopLabels {
    hop: Hop,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HopOnly {
    hop: Hop,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchLabels {
    watch: &'static str,
}

/// From a warm answer (microseconds) to the API server's longest time-out.
const SECONDS: [f64; 14] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];
const OK: &str = "Ok";

// === impl Metrics ===

impl Metrics {
    /// Fresh metrics.
    pub fn new() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let metrics = Self {
            registry: Arc::new(Mutex::new(Registry::with_prefix("acr_pull_webhook"))),
            admissions: Family::default(),
            admission_seconds: Family::new_with_constructor(histogram),
            hops: Family::default(),
            hop_seconds: Family::new_with_constructor(histogram),
            issuing: Gauge::default(),
            waiting: Gauge::default(),
            renewals: Family::default(),
            collected: Counter::default(),
            upkeep_panics: Counter::default(),
            first_expiration: Gauge::default(),
            azure_clock_ahead: Gauge::default(),
            certificate_ends: Gauge::default(),
            leader: Gauge::default(),
            watches_failing: Family::default(),
            unreadable_objects: Family::default(),
            leads_until: Arc::default(),
        };
        let mut registry = metrics.registry.lock().unwrap_or_else(PoisonError::into_inner);
        registry.register(
            "admissions",
            "Admission requests answered, by outcome and reason",
            metrics.admissions.clone(),
        );
        registry.register_with_unit(
            "admission_duration",
            "Time to the answer of an admission request",
            Unit::Seconds,
            metrics.admission_seconds.clone(),
        );
        registry.register(
            "upstream_requests",
            "Calls on the way to a pull token, by hop and result",
            metrics.hops.clone(),
        );
        registry.register_with_unit(
            "upstream_request_duration",
            "Time of a call on the way to a pull token",
            Unit::Seconds,
            metrics.hop_seconds.clone(),
        );
        registry.register(
            "pull_secrets_issuing",
            "Pull secrets whose token is being got right now",
            metrics.issuing.clone(),
        );
        registry.register(
            "pull_secrets_waiting",
            "Pull secrets that wait for their turn at a host or at the API server",
            metrics.waiting.clone(),
        );
        registry.register(
            "renewals",
            "Pull secrets that the leader made anew or failed to, by outcome and reason",
            metrics.renewals.clone(),
        );
        registry.register(
            "pull_secrets_collected",
            "Pull secrets that the leader deleted because no Pod named them",
            metrics.collected.clone(),
        );
        registry.register(
            "upkeep_panics",
            "Pull secrets that the leader failed to look after by a fault of the program",
            metrics.upkeep_panics.clone(),
        );
        registry.register_with_unit(
            "pull_secrets_first_expiration_timestamp",
            "When the first token ends of those in use that work, since 1970; NaN where nothing is known, as on replicas that do not lead",
            Unit::Seconds,
            metrics.first_expiration.clone(),
        );
        registry.register_with_unit(
            "azure_clock_ahead",
            "How far Azure's clock was ahead of this machine's when it last answered; behind, where negative",
            Unit::Seconds,
            metrics.azure_clock_ahead.clone(),
        );
        registry.register_with_unit(
            "certificate_expiration_timestamp",
            "When the certificate that is served ends, since 1970",
            Unit::Seconds,
            metrics.certificate_ends.clone(),
        );
        registry.register(
            "leader",
            "1 on the replica that leads, 0 on the others",
            metrics.leader.clone(),
        );
        registry.register(
            "watches_failing",
            "Places whose watch of this kind fails just now; a place is a namespace of --namespaces, or the cluster",
            metrics.watches_failing.clone(),
        );
        registry.register(
            "unreadable_objects",
            "Objects of this kind that exist and cannot be decoded, and so are skipped",
            metrics.unreadable_objects.clone(),
        );
        drop(registry);
        metrics.first_expiration(None);
        metrics
    }

    /// Counts one answered admission request.
    pub fn admission(&self, outcome: &'static str, problem: Option<&Problem>, took: Duration) {
        let reason = problem.map_or(OK, |p| p.reason.as_str());
        self.admissions
            .get_or_create(&AdmissionLabels { outcome, reason })
            .inc();
        self.admission_seconds
            .get_or_create(&OutcomeLabels { outcome })
            .observe(took.as_secs_f64());
    }

    /// Runs one call, counting and timing it.
    pub async fn hop<T>(
        &self,
        hop: Hop,
        call: impl Future<Output = Result<T, Problem>>,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        let result = call.await;
        let reason = result.as_ref().err().map_or(OK, |p| p.reason.as_str());
        self.hops.get_or_create(&HopLabels { hop, reason }).inc();
        self.hop_seconds
            .get_or_create(&HopOnly { hop })
            .observe(start.elapsed().as_secs_f64());
        result
    }

    /// Counts what became of a renewal, which would be this if it succeeded.
    pub fn renewal(&self, success: Renewal, result: &Result<(), Problem>) {
        let (outcome, reason) = match result {
            Ok(()) => (success, OK),
            Err(problem) => (Renewal::Failed, problem.reason.as_str()),
        };
        self.renewals
            .get_or_create(&RenewalLabels { outcome, reason })
            .inc();
    }

    /// The certificate that is served from now on ends then.
    pub fn certificate_ends(&self, ends: Timestamp) {
        self.certificate_ends.set(ends.as_second());
    }

    /// How far Azure's clock is ahead of ours.
    pub fn azure_clock_ahead(&self, ahead: SignedDuration) {
        self.azure_clock_ahead.set(ahead.as_secs_f64());
    }

    /// So many more places cannot be watched, or fewer.
    pub fn watch_failing(&self, what: &'static str, more: i64) {
        self.watches_failing
            .get_or_create(&WatchLabels::of(what))
            .inc_by(more);
    }

    /// So many objects cannot be decoded.
    pub fn unreadable_objects(&self, what: &'static str, number: usize) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.unreadable_objects
            .get_or_create(&WatchLabels::of(what))
            .set(number);
    }

    /// Counts a pull secret that was deleted.
    pub fn collected(&self) {
        self.collected.inc();
    }

    /// Counts a panic in the upkeep of one pull secret.
    pub fn upkeep_panicked(&self) {
        self.upkeep_panics.inc();
    }

    /// When the first token in use ends, if there is one and this replica knows.
    pub fn first_expiration(&self, ends: Option<Timestamp>) {
        let ends = ends.map_or(f64::NAN, |ends| ends.as_millisecond() as f64 / 1e3);
        self.first_expiration.set(ends);
    }

    /// Counts a pull secret as being issued until the result is dropped.
    pub fn issuing(&self) -> Issuing {
        self.issuing.inc();
        Issuing(self.issuing.clone())
    }

    /// Counts a pull secret that is being issued as one that waits until the result is dropped.
    pub fn waiting(&self) -> Waiting {
        self.waiting.inc();
        self.issuing.dec();
        Waiting {
            waiting: self.waiting.clone(),
            issuing: self.issuing.clone(),
        }
    }

    /// From now until then this replica leads, or it does not.
    pub fn leads_until(&self, until: Option<tokio::time::Instant>) {
        *self.leads_until.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// The text that `/metrics` answers.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        // By the clock: a process that was stopped is asked before it has found out that it leads no more.
        let until = *self.leads_until.lock().unwrap_or_else(PoisonError::into_inner);
        let leads = until.is_some_and(|until| tokio::time::Instant::now() < until);
        self.leader.set(leads.into());
        let mut text = String::new();
        encode(
            &mut text,
            &self.registry.lock().unwrap_or_else(PoisonError::into_inner),
        )?;
        Ok(text)
    }
}

impl WatchLabels {
    /// Of a watch that is called this in the log.
    fn of(what: &'static str) -> Self {
        Self {
            watch: what.strip_prefix("watch of ").unwrap_or(what),
        }
    }
}

impl Drop for Issuing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.dec();
        self.issuing.inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
