//! The decision about one Pod.

mod annotation;
mod http;
mod patch;
mod review;

pub use annotation::references;
pub use http::router;
pub use patch::patch;
pub use review::{Answer, PodView, Request, Verdict, parse};

use crate::{
    deadline::Deadline,
    generator::{Generators, Resolver, ServiceAccounts, valid},
    problem::{Class, Problem},
    pull_secret::{Issuer, Order, name},
    telemetry::Metrics,
};
use futures::future::join_all;
use std::{sync::Arc, time::Instant};

/// The service account of a Pod that names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// What to do with a Pod whose token Azure does not give just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnUpstreamFailure {
    /// Admit it with its pull secret's name and a warning, and go on trying: the kubelet retries by itself.
    Admit,
    /// Refuse it.
    Deny,
}

/// Decides about Pods; clones share everything.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    generators: Generators,
    accounts: ServiceAccounts,
    resolver: Resolver,
    issuer: Issuer,
    on_upstream_failure: OnUpstreamFailure,
    metrics: Metrics,
}

// === impl Admission ===

impl Admission {
    /// The decision over these parts.
    pub fn new(
        generators: Generators,
        accounts: ServiceAccounts,
        resolver: Resolver,
        issuer: Issuer,
        on_upstream_failure: OnUpstreamFailure,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            generators,
            accounts,
            resolver,
            issuer,
            on_upstream_failure,
            metrics,
        }))
    }

    /// Decides, and counts the decision.
    pub async fn decide(&self, request: &Request<'_>, deadline: Deadline) -> Verdict {
        let start = Instant::now();
        let verdict = deadline
            .bound(self.0.decide(request, deadline))
            .await
            .unwrap_or_else(|| {
                Verdict::Failed(Problem::new(
                    crate::problem::Reason::ApiServerUnavailable,
                    "the API server did not answer the webhook before its time-out",
                ))
            });
        let (outcome, problem) = match &verdict {
            Verdict::Untouched => ("untouched", None),
            Verdict::Patched { warning: None, .. } => ("patched", None),
            Verdict::Patched { warning, .. } => ("patched_without_token", warning.as_ref()),
            Verdict::Denied(problem) => ("denied", Some(problem)),
            Verdict::Failed(problem) => ("failed", Some(problem)),
        };
        self.0.metrics.admission(outcome, problem, start.elapsed());
        if let Some(problem) = problem {
            let Request {
                uid,
                namespace,
                object,
                ..
            } = request;
            let pod = object.name();
            tracing::info!(%uid, %namespace, pod, outcome, %problem, "admission");
        }
        verdict
    }
}

// === impl Inner ===

impl Inner {
    async fn decide(&self, request: &Request<'_>, deadline: Deadline) -> Verdict {
        match self.try_decide(request, deadline).await {
            Ok(verdict) => verdict,
            Err(problem) if problem.reason.class() == Class::ApiServer => Verdict::Failed(problem),
            Err(problem) => Verdict::Denied(problem),
        }
    }

    async fn try_decide(&self, request: &Request<'_>, deadline: Deadline) -> Result<Verdict, Problem> {
        let Some(annotation) = request.wanted() else {
            return Ok(Verdict::Untouched);
        };
        let references = references(annotation)?;
        if references.is_empty() {
            return Ok(Verdict::Untouched);
        }
        // Everything is resolved before anything is made: a refusal leaves nothing behind.
        let mut orders = Vec::with_capacity(references.len());
        for generator in references {
            orders.push(self.order(request, generator).await?);
        }
        let names: Vec<_> = orders.iter().map(|order| order.name.clone()).collect();
        let warning = if request.dry_run {
            None
        } else {
            self.ensure(orders, deadline).await?
        };
        Ok(Verdict::Patched {
            patch: patch(&request.object, &names),
            warning,
        })
    }

    async fn order(&self, request: &Request<'_>, generator_name: &str) -> Result<Order, Problem> {
        let namespace: &str = &request.namespace;
        let guard = match self.generators.known(namespace, generator_name) {
            Some(known) => known,
            None => self.generators.fetch(namespace, generator_name).await?,
        };
        let generator = valid(&guard)?;
        let pods = request
            .object
            .service_account()
            .unwrap_or(DEFAULT_SERVICE_ACCOUNT);
        let account = self.resolver.account(generator, pods)?;
        let annotations = match self.accounts.known(namespace, account.name()) {
            Some(known) => known,
            None => self.accounts.fetch(namespace, account.name()).await?,
        };
        let inputs = self.resolver.resolve(generator, account, &annotations)?;
        Ok(Order {
            namespace: namespace.to_owned(),
            name: name(generator_name, account),
            generator: generator_name.to_owned(),
            inputs_hash: inputs.fingerprint(),
            inputs,
        })
    }

    /// Gets all pull secrets at once. A refusal of one refuses the Pod; Azure's trouble
    /// becomes a warning where the administrator wants that.
    async fn ensure(&self, orders: Vec<Order>, deadline: Deadline) -> Result<Option<Problem>, Problem> {
        let outcomes = join_all(
            orders
                .into_iter()
                .map(|order| self.issuer.ensure(order, deadline)),
        )
        .await;
        let mut warning = None;
        for problem in outcomes.into_iter().filter_map(Result::err) {
            let upstream = problem.reason.class() == Class::Upstream;
            if !(upstream && self.on_upstream_failure == OnUpstreamFailure::Admit) {
                return Err(problem);
            }
            warning = Some(problem);
        }
        Ok(warning)
    }
}
