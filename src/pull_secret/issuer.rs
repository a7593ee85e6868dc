//! Makes sure that the Secrets exist that Pods need.

use super::{
    ACRPullSecret, PullSecretPlan, PullSecrets, Resolver, WatchedPullSecret, Writer,
    census::Reservation,
    extra_metadata::ExtraMetadata,
    flight::{Flights, Job, Retries, Waiter},
    freshness::{Freshness, freshness_of, is_disputed, marked_unused},
    issuance::{Cause, Issuance},
    marks::Marks,
    policy::{Ensured, OnUpstreamFailure},
};
use crate::{
    cluster::Cluster,
    deadline::Deadline,
    identity::TokenSource,
    names::NamespacedName,
    problem::Problem,
    registry::RegistryClient,
    telemetry::Metrics,
    transport::{Gates, Progress, Stage, deadline_exceeded},
};
use std::{sync::Arc, time::Duration};

/// How pull secrets are issued.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What happens when Azure fails.
    pub on_upstream_failure: OnUpstreamFailure,
    /// The largest number of pull secrets in one namespace.
    pub max_per_namespace: u32,
    /// Labels and annotations of every pull Secret and `ACRPullSecret`.
    pub extra_metadata: ExtraMetadata,
}

/// Issues pull secrets. Clones share everything.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    pull_secrets: PullSecrets,
    resolver: Arc<Resolver>,
    issuance: Issuance,
    flights: Flights<NamespacedName, String>,
    marks: Marks,
    settings: Settings,
}

impl Issuer {
    /// Starts the watch of pull secrets. All calls go through these gates.
    pub fn new(
        cluster: &Cluster,
        resolver: Arc<Resolver>,
        tokens: TokenSource,
        registry: RegistryClient,
        gates: Gates,
        settings: Settings,
        metrics: Metrics,
    ) -> Self {
        let flights = Flights::default();
        let deleted = flights.clone();
        let pull_secrets = PullSecrets::watch(cluster, move |key| deleted.forget(key));
        let issuance = Issuance {
            tokens,
            registry,
            gates,
            writer: Writer::new(cluster.client.clone(), settings.extra_metadata.clone()),
            pull_secrets: pull_secrets.clone(),
            events: cluster.events.clone(),
            metrics,
        };
        Self(Arc::new(Inner {
            pull_secrets,
            resolver,
            issuance,
            flights,
            marks: Marks::default(),
            settings,
        }))
    }

    /// The watched pull secrets.
    pub fn pull_secrets(&self) -> &PullSecrets {
        &self.0.pull_secrets
    }

    /// Writes pull secrets.
    pub fn writer(&self) -> &Writer {
        &self.0.issuance.writer
    }

    /// Makes sure that the Secret of a Pod which is being admitted holds a token. `None` means that it does already,
    /// and that there is nothing to wait for.
    pub fn ensure(
        &self,
        plan: Arc<PullSecretPlan>,
        deadline: Deadline,
    ) -> Option<impl Future<Output = Result<Ensured, Problem>> + Send + use<>> {
        let known = self.0.pull_secrets.planned(&plan);
        let freshness = self.0.freshness(known.as_deref(), &plan);
        if freshness == Freshness::Fresh && marked_unused(known.as_deref()).is_none() {
            return None;
        }
        let inner = self.0.clone();
        Some(async move {
            let request = plan.request.clone();
            match inner.ensure(plan, known, freshness, deadline).await {
                Ok(()) => Ok(Ensured::Issued),
                Err(problem) => {
                    inner.resolver.warn_on_generator(&request, &problem);
                    inner.settings.on_upstream_failure.judge(problem)
                }
            }
        })
    }

    /// Issues an existing pull secret again, or joins a flight that does so already.
    pub async fn renew(&self, plan: Arc<PullSecretPlan>, cause: Cause) -> Result<(), Problem> {
        if matches!(cause, Cause::Repair { .. }) {
            // The complaint is about the Secret that the last flight wrote.
            self.0.flights.forget_success(plan.key());
        }
        self.0.join(plan, cause)?.outcome().await
    }

    /// Reports in its status that a pull secret cannot be resolved any more.
    pub async fn report(&self, key: &NamespacedName, owner: &ACRPullSecret, problem: &Problem) {
        self.0.issuance.report_failure(key, owner, problem).await;
    }

    /// Reports in its status that a Pod pulls with a pull secret whose status reported a refusal.
    pub async fn report_working(&self, key: &NamespacedName, owner: &ACRPullSecret) {
        self.0.issuance.report_working(key, owner).await;
    }
}

impl Inner {
    async fn ensure(
        self: &Arc<Self>,
        plan: Arc<PullSecretPlan>,
        known: Option<Arc<WatchedPullSecret>>,
        mut freshness: Freshness,
        deadline: Deadline,
    ) -> Result<(), Problem> {
        // The inner deadline ends first, and its error says where the time went.
        let deadline = deadline.inner();
        let plan = if is_disputed(known.as_deref(), &plan.inputs_hash) {
            let settled = self.settle(plan).await?;
            freshness = self.freshness(known.as_deref(), &settled);
            settled
        } else {
            plan
        };
        if let Some(marked) = marked_unused(known.as_deref()) {
            // It is about to be deleted, and this Pod needs it.
            let taken_back = self.marks.take_back(plan.key(), marked, &self.issuance.writer);
            let exists = deadline.bound(taken_back).await;
            if !exists.unwrap_or_else(|| Err(deadline_exceeded(&Stage::Kubernetes, Duration::ZERO)))? {
                freshness = Freshness::Stale;
            }
        }
        if freshness == Freshness::Fresh {
            return Ok(());
        }
        let mut waiter = self.join(plan, Cause::Admission)?;
        if freshness == Freshness::Usable {
            // The Secret is replaced in the background.
            return Ok(());
        }
        match deadline.bound(waiter.outcome()).await {
            Some(outcome) => outcome,
            None => Err(waiter
                .last_problem()
                .unwrap_or_else(|| waiter.progress().deadline_exceeded())),
        }
    }

    /// Makes the plan again from what the API server has. The pull secret was made from other inputs a moment ago: one
    /// replica has not seen the latest change of the generator or the service account, and it may be this one.
    async fn settle(&self, plan: Arc<PullSecretPlan>) -> Result<Arc<PullSecretPlan>, Problem> {
        tracing::info!(
            namespace = plan.namespace().as_str(),
            name = plan.name().as_str(),
            "the pull secret was made from other inputs a moment ago: generator and service account are read again"
        );
        let live = self.resolver.resolve_live(&plan.request).await?.plan;
        // The name that the Pod is given stays.
        Ok(if live.key() == plan.key() { live } else { plan })
    }

    /// The freshness of a pull secret, as it is known. A flight for other inputs means that the watch is behind.
    fn freshness(&self, known: Option<&WatchedPullSecret>, plan: &PullSecretPlan) -> Freshness {
        if self.flights.has_other_version(plan.key(), &plan.inputs_hash) {
            return Freshness::Stale;
        }
        freshness_of(known, &plan.inputs_hash)
    }

    fn join(self: &Arc<Self>, plan: Arc<PullSecretPlan>, cause: Cause) -> Result<Waiter, Problem> {
        let max = self.settings.max_per_namespace;
        let flight = IssuanceFlight {
            _reservation: self.pull_secrets.reserve(plan.key(), max)?,
            issuer: self.clone(),
            plan: plan.clone(),
            cause,
        };
        Ok(self
            .flights
            .join(plan.key().clone(), plan.inputs_hash.clone(), flight))
    }
}

/// The job of a flight: to issue one pull secret.
struct IssuanceFlight {
    issuer: Arc<Inner>,
    plan: Arc<PullSecretPlan>,
    cause: Cause,
    /// The pull secret counts in its namespace for as long as the flight lasts.
    _reservation: Reservation,
}

impl Job for IssuanceFlight {
    async fn attempt(&self, progress: Progress) -> Result<(), Problem> {
        let Inner {
            issuance, flights, ..
        } = &*self.issuer;
        let was_refused = flights.was_refused(self.plan.key(), &self.plan.inputs_hash);
        issuance
            .issue(&self.plan, &self.cause, was_refused, progress)
            .await
    }

    async fn refresh(&mut self) -> Result<(), Problem> {
        self.plan = self.issuer.resolver.resolve(&self.plan.request).await?.plan;
        Ok(())
    }

    fn retries(&self) -> Retries {
        match (&self.cause, self.issuer.settings.on_upstream_failure) {
            (Cause::Renewal { .. } | Cause::Repair { .. }, _) => Retries::Never,
            (Cause::Admission, OnUpstreamFailure::Admit) => Retries::Unlimited,
            (Cause::Admission, OnUpstreamFailure::Deny) => Retries::Quick,
        }
    }
}
