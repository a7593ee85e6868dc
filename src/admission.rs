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
    pull_secret::{Catalog, Issuer, Order, Resolution, Wish},
    telemetry::Metrics,
};
use futures::future::join_all;
use std::{sync::Arc, time::Instant};

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
    catalog: Arc<Catalog>,
    defaults: NamespaceDefaults,
    issuer: Issuer,
    on_upstream_failure: OnUpstreamFailure,
    metrics: Metrics,
}

// === impl Admission ===

impl Admission {
    /// The decision over these parts.
    pub fn new(
        catalog: Arc<Catalog>,
        defaults: NamespaceDefaults,
        issuer: Issuer,
        on_upstream_failure: OnUpstreamFailure,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            catalog,
            defaults,
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
        self.0.metrics.count_admission(outcome, problem, start.elapsed());
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
    pub async fn wishes_of(&self, pod: &Pod) -> Result<Vec<Wish>, Problem> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let service_account = pod.spec.service_account_name.as_deref();
        let annotations = pod.metadata.annotations.as_ref();
        let Some(annotation) = annotations.and_then(|all| all.get(ACCESS_TOKEN)) else {
            let wish = self.0.default_wish(namespace, service_account).await?;
            return Ok(wish.into_iter().collect());
        };
        let wish = |reference| Wish::new(namespace, reference, service_account);
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
        // Everything is resolved before anything is made: a refusal leaves nothing behind.
        let (mut orders, mut notes) = (Vec::with_capacity(wishes.len()), Vec::new());
        for wish in wishes {
            let resolved = self.catalog.resolve(&wish).await;
            let Resolution { order, note } = resolved.inspect_err(|problem| {
                if !request.dry_run {
                    self.catalog.blame(&wish, problem);
                }
            })?;
            notes.extend(note);
            let registry = order.inputs.registry.as_str();
            if !request.object.pulls_from(registry) {
                let Order { generator, .. } = &*order;
                notes.push(format!(
                    "no container image comes from {registry}, the registry of {} {}",
                    generator.kind, generator.name
                ));
            }
            orders.push((order, wish));
        }
        let names: Vec<_> = orders.iter().map(|(order, _)| order.name.as_str()).collect();
        let patch = patch(&request.object, &names);
        if !request.dry_run {
            orders.retain(|(order, _)| !self.issuer.has(order));
        }
        let mut pending = if request.dry_run || orders.is_empty() {
            Vec::new()
        } else {
            // Apart, as it is large: each admission would carry it along.
            Box::pin(self.ensure(orders, deadline)).await?
        };
        // Its token is there.
        let not_granted = pending.extract_if(.., |problem| problem.reason == Reason::ScopeNotGranted);
        notes.extend(not_granted.map(|problem| problem.to_string()));
        Ok(Verdict::Patched {
            patch,
            pending,
            notes,
        })
    }

    /// What the Namespace's label wishes for a Pod that says nothing: something only where an image comes
    /// from that registry, for the Pod itself did not ask.
    async fn wish_by_default(&self, request: &Request<'_>) -> Result<Option<Wish>, Problem> {
        let Request {
            namespace, object, ..
        } = request;
        // Whatever the label says, be it right or wrong, is no matter of a Pod that no generator could serve.
        if self.catalog.excluded().contains(namespace)
            || !object
                .registries()
                .any(|registry| self.catalog.may_serve(registry))
        {
            return Ok(None);
        }
        if let Some(label) = self.defaults.known(namespace)
            && let Ok(Some(reference)) = default_reference(&label)
            && let wish = wish(request, reference)
            && let Some(registry) = self.catalog.known_registry(&wish)
            && object.pulls_from(registry.as_str())
        {
            return Ok(Some(wish));
        }
        // A Pod left alone cannot be helped later, so that is not decided by what a watch has seen so far. Apart, as it is
        // large: each admission would carry it along.
        Box::pin(self.ask_for_default(request)).await
    }

    async fn ask_for_default(&self, request: &Request<'_>) -> Result<Option<Wish>, Problem> {
        let Request {
            namespace, object, ..
        } = request;
        let Some(wish) = self.default_wish(namespace, object.service_account()).await? else {
            return Ok(None);
        };
        let registry = self
            .catalog
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
    ) -> Result<Option<Wish>, Problem> {
        let Some(label) = self.defaults.fetch(namespace).await? else {
            return Ok(None);
        };
        let reference = default_reference(&label)?;
        Ok(reference.map(|reference| Wish::new(namespace, reference, service_account)))
    }

    /// Gets all pull secrets at once. A refusal of one refuses the Pod; Azure's trouble
    /// becomes a warning where the administrator wants that.
    async fn ensure(
        self: &Arc<Self>,
        orders: Vec<(Arc<Order>, Wish)>,
        deadline: Deadline,
    ) -> Result<Vec<Problem>, Problem> {
        let outcomes = join_all(orders.into_iter().map(|(order, wish)| {
            let (inner, wish) = (self.clone(), Arc::new(wish));
            let wished = wish.clone();
            let refresh = move |()| {
                let (inner, wish) = (inner.clone(), wish.clone());
                async move { inner.catalog.resolve(&wish).await.map(|anew| anew.order) }
            };
            async move {
                let order = match self.issuer.is_disputed(&order) {
                    true => self.settled(order, &wished).await?,
                    false => order,
                };
                let outcome = self.issuer.ensure(order, refresh, deadline).await;
                outcome.inspect_err(|problem| self.catalog.blame(&wished, problem))
            }
        }))
        .await;
        let mut pending = Vec::new();
        for problem in outcomes.into_iter().filter_map(Result::err) {
            let admits = match problem.reason.class() {
                Class::Upstream => self.on_upstream_failure == OnUpstreamFailure::Admit,
                // The Secret is there, and the registry may grant the rest later.
                _ => problem.reason == Reason::ScopeNotGranted,
            };
            if !admits {
                return Err(problem);
            }
            pending.push(problem);
        }
        Ok(pending)
    }

    /// The order as the API server has it now, if it is still about the same pull secret.
    async fn settled(&self, order: Arc<Order>, wish: &Wish) -> Result<Arc<Order>, Problem> {
        tracing::info!(
            namespace = order.namespace,
            name = order.name,
            "the pull secret was made from other inputs a moment ago: generator and service account are read again"
        );
        let found = Box::pin(self.catalog.look_up(wish)).await?.order;
        Ok(match found.name == order.name {
            true => found,
            false => order,
        })
    }
}

fn wish(request: &Request<'_>, reference: Reference<'_>) -> Wish {
    Wish::new(&request.namespace, reference, request.object.service_account())
}
