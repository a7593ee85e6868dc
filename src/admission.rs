//! The decision about one Pod.

mod annotation;
mod http;
mod patch;
mod review;
mod warnings;

pub use annotation::{ACCESS_TOKEN, MAX_REFERENCES, default_reference, references};
pub use http::router;
pub use patch::{INJECTED, PULL_SECRETS, patch};
pub use review::{Answer, PodView, Request, Verdict, Wanted, parse};

use crate::{
    deadline::Deadline,
    foreign::Foreign,
    generator::{NamespaceDefaults, Reference},
    kubernetes::Pod,
    problem::{Class, Problem, Reason},
    pull_secret::{Ensured, Issuer, PullSecretRequest, Resolution, Resolver},
    telemetry::Metrics,
};
use futures::future::join_all;
use std::{sync::Arc, time::Instant};

/// Decides about Pods; clones share everything.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    resolver: Arc<Resolver>,
    defaults: NamespaceDefaults,
    issuer: Issuer,
    metrics: Metrics,
}

// === impl Admission ===

impl Admission {
    /// The decision over these parts.
    pub fn new(
        resolver: Arc<Resolver>,
        defaults: NamespaceDefaults,
        issuer: Issuer,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            resolver,
            defaults,
            issuer,
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
                    Reason::ApiServerUnavailable,
                    "the API server did not answer the webhook before its time-out",
                ))
            });
        let (outcome, problem) = match &verdict {
            Verdict::Untouched => ("untouched", None),
            Verdict::Patched { pending, .. } => match pending.first() {
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
            // Where a certificate of the caller is not asked for, nobody has checked these.
            let (uid, pod) = (Foreign::new(uid), Foreign::new(object.name()));
            tracing::info!(%uid, %namespace, %pod, outcome, %problem, "admission");
        }
        verdict
    }
}

impl Admission {
    /// What a Pod that exists asks for, as it did when it was admitted.
    pub async fn wishes_of(&self, pod: &Pod) -> Result<Vec<PullSecretRequest>, Problem> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let service_account = pod.spec.service_account_name.as_deref();
        let annotations = pod.metadata.annotations.as_ref();
        let Some(annotation) = annotations.and_then(|all| all.get(ACCESS_TOKEN)) else {
            let wish = self.0.default_wish(namespace, service_account).await?;
            return Ok(wish.into_iter().collect());
        };
        let wish = |reference| PullSecretRequest::new(namespace, reference, service_account);
        Ok(references(annotation)?.into_iter().map(wish).collect())
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
        let wishes = match request.wanted() {
            None => Vec::new(),
            Some(Wanted::Annotation(annotation)) => references(annotation)?
                .into_iter()
                .map(|reference| wish(request, reference))
                .collect(),
            Some(Wanted::Default) => self.wish_by_default(request).await?.into_iter().collect(),
        };
        if wishes.is_empty() {
            return Ok(Verdict::Untouched);
        }
        // Every request is resolved before anything is made: a refusal leaves nothing behind.
        let mut plans = Vec::with_capacity(wishes.len());
        let mut notes = Vec::new();
        for wish in wishes {
            let resolved = self.resolver.resolve(&wish).await;
            let Resolution { plan, warning } = resolved.inspect_err(|problem| {
                if !request.dry_run {
                    self.resolver.warn_on_generator(&wish, problem);
                }
            })?;
            notes.extend(warning);
            let registry = plan.inputs.registry.as_str();
            if !request.object.pulls_from(registry) {
                notes.push(format!(
                    "no container image comes from {registry}, the registry of {}",
                    plan.request.reference()
                ));
            }
            plans.push(plan);
        }
        let names: Vec<_> = plans.iter().map(|plan| plan.name()).collect();
        let patch = patch(&request.object, &names);
        let mut pending = Vec::new();
        if !request.dry_run {
            let waits: Vec<_> = plans
                .into_iter()
                .filter_map(|plan| self.issuer.ensure(plan, deadline))
                .collect();
            if !waits.is_empty() {
                for ensured in join_all(waits).await {
                    match ensured? {
                        Ensured::Issued => {}
                        Ensured::Pending(problem) => pending.push(problem),
                        Ensured::Incomplete(problem) => notes.push(problem.to_string()),
                    }
                }
            }
        }
        Ok(Verdict::Patched {
            patch,
            pending,
            notes,
        })
    }

    /// What the Namespace's label wishes for a Pod that says nothing: something only where an image comes
    /// from that registry, for the Pod itself did not ask.
    async fn wish_by_default(&self, request: &Request<'_>) -> Result<Option<PullSecretRequest>, Problem> {
        let Request {
            namespace, object, ..
        } = request;
        // Whatever the label says, be it right or wrong, is no matter of a Pod that no generator could serve.
        if self.resolver.excluded().contains(namespace)
            || !object
                .registries()
                .any(|registry| self.resolver.may_serve(registry))
        {
            return Ok(None);
        }
        if let Some(label) = self.defaults.cached(namespace)
            && let Ok(Some(reference)) = default_reference(&label)
            && let wish = wish(request, reference)
            && let Some(registry) = self.resolver.known_registry(&wish)
            && object.pulls_from(registry.as_str())
        {
            return Ok(Some(wish));
        }
        // A Pod left alone cannot be helped later, so that is not decided by what a watch has seen so far. Apart, as it is
        // large: each admission would carry it along.
        Box::pin(self.ask_for_default(request)).await
    }

    async fn ask_for_default(&self, request: &Request<'_>) -> Result<Option<PullSecretRequest>, Problem> {
        let Request {
            namespace, object, ..
        } = request;
        let Some(wish) = self.default_wish(namespace, object.service_account()).await? else {
            return Ok(None);
        };
        let registry = self
            .resolver
            .fetch_registry(&wish)
            .await
            .map_err(|problem| problem.at(format_args!("by default of namespace {namespace}")))?;
        Ok(object.pulls_from(registry.as_str()).then_some(wish))
    }

    /// What the Namespace's label wishes, as the API server has it.
    async fn default_wish(
        &self,
        namespace: &str,
        service_account: Option<&str>,
    ) -> Result<Option<PullSecretRequest>, Problem> {
        let Some(label) = self.defaults.fetch(namespace).await? else {
            return Ok(None);
        };
        let reference = default_reference(&label)?;
        Ok(reference.map(|reference| PullSecretRequest::new(namespace, reference, service_account)))
    }
}

fn wish(request: &Request<'_>, reference: Reference<'_>) -> PullSecretRequest {
    PullSecretRequest::new(&request.namespace, reference, request.object.service_account())
}
