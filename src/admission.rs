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
    generator::{
        Account, Generator, Generators, Kind, Reference, Referenced, Resolved, Resolver, ServiceAccounts,
    },
    problem::{Class, Problem},
    pull_secret::{GeneratorReference, Issuer, Order, name},
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

/// What one reference of a Pod asks for, by names alone.
struct Wish {
    namespace: String,
    kind: Kind,
    generator: String,
    service_account: String,
}

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
            Verdict::Patched { warnings, .. } => match warnings.first() {
                None => ("patched", None),
                first => ("patched_without_token", first),
            },
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
    async fn decide(self: &Arc<Self>, request: &Request<'_>, deadline: Deadline) -> Verdict {
        match self.try_decide(request, deadline).await {
            Ok(verdict) => verdict,
            Err(problem) if problem.reason.class() == Class::ApiServer => Verdict::Failed(problem),
            Err(problem) => Verdict::Denied(problem),
        }
    }

    async fn try_decide(
        self: &Arc<Self>,
        request: &Request<'_>,
        deadline: Deadline,
    ) -> Result<Verdict, Problem> {
        let Some(annotation) = request.wanted() else {
            return Ok(Verdict::Untouched);
        };
        let references = references(annotation)?;
        if references.is_empty() {
            return Ok(Verdict::Untouched);
        }
        // Everything is resolved before anything is made: a refusal leaves nothing behind.
        let mut orders = Vec::with_capacity(references.len());
        for Reference { kind, name } in references {
            let wish = Wish {
                namespace: request.namespace.to_string(),
                kind,
                generator: name.to_owned(),
                service_account: request
                    .object
                    .service_account()
                    .unwrap_or(DEFAULT_SERVICE_ACCOUNT)
                    .to_owned(),
            };
            orders.push((self.order(&wish).await?, wish));
        }
        let names: Vec<_> = orders.iter().map(|(order, _)| order.name.clone()).collect();
        let warnings = if request.dry_run {
            Vec::new()
        } else {
            self.ensure(orders, deadline).await?
        };
        Ok(Verdict::Patched {
            patch: patch(&request.object, &names),
            warnings,
        })
    }

    /// Resolves what a Pod wishes. What a watch has not seen yet, be it missing or only wrong
    /// as we know it, is looked up once before the Pod is refused for it.
    async fn order(&self, wish: &Wish) -> Result<Order, Problem> {
        let (namespace, reference) = (&wish.namespace, wish.reference());
        if let Some(known) = self.generators.known(namespace, reference)
            && let Ok(generator) = wish.referenced(&known)
            && let Ok(account) = self.resolver.account(generator, &wish.service_account)
            && let Some(annotations) = self.accounts.known(account.namespace(namespace), account.name())
            && let Ok(inputs) = self.resolver.resolve(generator, account, &annotations)
        {
            return Ok(wish.order(account, inputs));
        }
        let found = self.generators.fetch(namespace, reference).await?;
        let generator = wish.referenced(&found)?;
        let account = self.resolver.account(generator, &wish.service_account)?;
        let annotations = self
            .accounts
            .fetch(account.namespace(namespace), account.name())
            .await?;
        let inputs = self.resolver.resolve(generator, account, &annotations)?;
        Ok(wish.order(account, inputs))
    }

    /// Gets all pull secrets at once. A refusal of one refuses the Pod; Azure's trouble
    /// becomes a warning where the administrator wants that.
    async fn ensure(
        self: &Arc<Self>,
        orders: Vec<(Order, Wish)>,
        deadline: Deadline,
    ) -> Result<Vec<Problem>, Problem> {
        let outcomes = join_all(orders.into_iter().map(|(order, wish)| {
            let (inner, wish) = (self.clone(), Arc::new(wish));
            let refresh = move |()| {
                let (inner, wish) = (inner.clone(), wish.clone());
                async move { inner.order(&wish).await }
            };
            self.issuer.ensure(order, refresh, deadline)
        }))
        .await;
        let mut warnings = Vec::new();
        for problem in outcomes.into_iter().filter_map(Result::err) {
            let upstream = problem.reason.class() == Class::Upstream;
            if !(upstream && self.on_upstream_failure == OnUpstreamFailure::Admit) {
                return Err(problem);
            }
            warnings.push(problem);
        }
        Ok(warnings)
    }
}

// === impl Wish ===

impl Wish {
    fn reference(&self) -> Reference<'_> {
        Reference {
            kind: self.kind,
            name: &self.generator,
        }
    }

    fn referenced<'a>(&'a self, generator: &'a Generator) -> Result<Referenced<'a>, Problem> {
        let reference = self.reference();
        Ok(Referenced {
            reference,
            namespace: &self.namespace,
            spec: generator.spec(reference)?,
        })
    }

    fn order(&self, account: Account<'_>, inputs: Resolved) -> Order {
        Order {
            namespace: self.namespace.clone(),
            name: name(self.reference(), account),
            generator: GeneratorReference {
                kind: self.kind.as_str().to_owned(),
                name: self.generator.clone(),
            },
            inputs_hash: inputs.fingerprint(),
            inputs,
        }
    }
}
