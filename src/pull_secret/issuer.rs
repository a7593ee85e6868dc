//! From an order to a written Secret: assertion, Entra, registry, API server.

use super::{ACRPullSecret, Writer, flight::Flights, freshness::is_fresh};
use crate::{
    deadline::Deadline,
    generator::Resolved,
    identity::{AssertionSource, EntraClient},
    problem::{Class, Problem, Reason},
    registry::{PullToken, RegistryClient},
    telemetry::{Metrics, Readiness},
    watch,
};
use jiff::Timestamp;
use kube::{
    Api, Client,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};
use std::sync::Arc;

/// A pull secret that a Pod needs.
#[derive(Clone, Debug)]
pub struct Order {
    /// The namespace of the Pod, and so of everything else.
    pub namespace: String,
    /// The name of the Secret and of its owner.
    pub name: String,
    /// The name of the generator.
    pub generator: String,
    /// Everything the token depends on.
    pub inputs: Resolved,
    /// The fingerprint of `inputs`.
    pub inputs_hash: String,
}

/// Makes sure that pull secrets exist.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    assertions: AssertionSource,
    entra: EntraClient,
    registry: RegistryClient,
    writer: Writer,
    known: Store<ACRPullSecret>,
    flights: Flights,
    keep_trying: bool,
    metrics: Metrics,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer; with `keep_trying`, one that Azure's trouble does not stop goes on in the background.
    pub fn new(
        client: &Client,
        readiness: &Readiness,
        assertions: AssertionSource,
        entra: EntraClient,
        registry: RegistryClient,
        keep_trying: bool,
        metrics: Metrics,
    ) -> Self {
        let flights = Flights::default();
        let forget = flights.clone();
        let known = watch::start(
            "watch of ACRPullSecrets",
            Api::<ACRPullSecret>::all(client.clone()),
            readiness,
            |object| object.metadata.managed_fields = None,
            move |event| {
                if let Event::Delete(gone) = event {
                    let metadata = &gone.metadata;
                    forget.forget(
                        metadata.namespace.as_deref().unwrap_or_default(),
                        metadata.name.as_deref().unwrap_or_default(),
                    );
                }
            },
        );
        Self(Arc::new(Inner {
            assertions,
            entra,
            registry,
            writer: Writer::new(client.clone()),
            known,
            flights,
            keep_trying,
            metrics,
        }))
    }

    /// Returns when the Secret of the order is in place, at once when it is already.
    pub async fn ensure(&self, order: Order, deadline: Deadline) -> Result<(), Problem> {
        if self.0.is_fresh(&order) {
            return Ok(());
        }
        let inner = self.0.clone();
        let watch = self.0.flights.join(
            order,
            move |order| {
                let inner = inner.clone();
                async move { inner.issue(&order).await }
            },
            self.0.keep_trying,
        );
        deadline.bound(watch.outcome()).await.unwrap_or_else(|| {
            Err(Problem::new(
                Reason::UpstreamTimeout,
                "Azure did not give the token before the API server's time-out",
            ))
        })
    }
}

// === impl Inner ===

impl Inner {
    fn is_fresh(&self, order: &Order) -> bool {
        self.known
            .get(&ObjectRef::new(&order.name).within(&order.namespace))
            .and_then(|object| {
                object
                    .status
                    .as_ref()
                    .map(|s| is_fresh(s, &order.inputs_hash, Timestamp::now()))
            })
            .unwrap_or(false)
    }

    async fn issue(&self, order: &Order) -> Result<(), Problem> {
        let issuing = self.metrics.issuing();
        let result = self.try_issue(order).await;
        drop(issuing);
        let Order { namespace, name, .. } = order;
        let service_account = &order.inputs.identity.service_account;
        match &result {
            Ok(expires) => {
                tracing::info!(namespace, name, service_account, %expires, "pull secret issued");
            }
            Err(problem) if problem.reason.class() == Class::Upstream => {
                tracing::warn!(namespace, name, service_account, %problem, "pull secret not issued yet");
            }
            Err(problem) => {
                tracing::info!(namespace, name, service_account, %problem, "pull secret refused");
            }
        }
        result.map(drop)
    }

    async fn try_issue(&self, order: &Order) -> Result<Timestamp, Problem> {
        let (owner, token) = tokio::join!(self.writer.apply_owner(order), self.pull_token(order));
        let owner = owner?;
        let written = async {
            let token = token?;
            let uid = self.writer.apply_secret(&owner, order, &token).await?;
            Ok((token, uid))
        };
        let now = Timestamp::now();
        let (result, report) = match written.await {
            Ok((token, uid)) => {
                let report = self.writer.report_success(&owner, order, &token, uid, now).await;
                (Ok(token.expires), report)
            }
            Err(problem) => {
                let report = self.writer.report_failure(&owner, order, &problem, now).await;
                (Err(problem), report)
            }
        };
        // The Secret is what the Pod needs; a status that lags costs one more token later.
        if let Err(problem) = report {
            tracing::warn!(%problem, "the status of an ACRPullSecret was not written");
        }
        result
    }

    async fn pull_token(&self, order: &Order) -> Result<PullToken, Problem> {
        let Resolved {
            identity,
            registry,
            scope,
        } = &order.inputs;
        let assertion = self.assertions.assertion(identity).await?;
        let entra = self.entra.token(identity, assertion).await?;
        self.registry
            .pull_token(registry, &identity.tenant_id, scope.as_ref(), &entra)
            .await
    }
}
