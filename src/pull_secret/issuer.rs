//! From an order to a written Secret: assertion, Entra, registry, API server.

use super::{
    ACRPullSecret, GeneratorReference, Writer,
    flight::{AsyncTry, Flights},
    freshness::{Freshness, freshness},
};
use crate::{
    deadline::Deadline,
    generator::Resolved,
    identity::TokenSource,
    problem::{Problem, Reason},
    registry::{PullToken, RegistryClient},
    telemetry::{Metrics, Readiness},
    watch,
};
use jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    core::DeserializeGuard,
    runtime::{
        reflector::{ObjectRef, Store},
        watcher::Event,
    },
};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How many pull secrets are issued at once: enough for a cold cluster, few enough for Entra's
/// throttling and our memory.
const MAX_ISSUING: usize = 64;

/// A pull secret that a Pod needs.
#[derive(Clone, Debug)]
pub struct Order {
    /// The namespace of the Pod, and so of everything else.
    pub namespace: String,
    /// The name of the Secret and of its owner.
    pub name: String,
    /// The generator.
    pub generator: GeneratorReference,
    /// Everything the token depends on.
    pub inputs: Resolved,
    /// The fingerprint of `inputs`.
    pub inputs_hash: String,
}

/// A pull token, and for whom it was made.
pub struct Minted {
    /// The token.
    pub token: PullToken,
    /// The Entra application (client) id, where it is known.
    pub client_id: Option<String>,
}

/// Makes sure that pull secrets exist.
#[derive(Clone)]
pub struct Issuer(Arc<Inner>);

struct Inner {
    tokens: TokenSource,
    registry: RegistryClient,
    writer: Writer,
    /// Guarded: an object that somebody spoilt blinds nobody to the others.
    known: Store<DeserializeGuard<ACRPullSecret>>,
    flights: Flights,
    permits: Semaphore,
    keep_trying: bool,
    metrics: Metrics,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer; with `keep_trying`, one that trouble does not stop goes on in the background.
    pub fn new(
        client: &Client,
        readiness: &Readiness,
        tokens: TokenSource,
        registry: RegistryClient,
        keep_trying: bool,
        metrics: Metrics,
    ) -> Self {
        let flights = Flights::default();
        let forget = flights.clone();
        let known = watch::start(
            "watch of ACRPullSecrets",
            Api::<DeserializeGuard<ACRPullSecret>>::all(client.clone()),
            None,
            readiness,
            |object| object.meta_mut().managed_fields = None,
            move |event| {
                if let Event::Delete(gone) = event {
                    let metadata = gone.meta();
                    forget.forget(
                        metadata.namespace.as_deref().unwrap_or_default(),
                        metadata.name.as_deref().unwrap_or_default(),
                    );
                }
            },
        );
        Self(Arc::new(Inner {
            tokens,
            registry,
            writer: Writer::new(client.clone()),
            known,
            flights,
            permits: Semaphore::new(MAX_ISSUING),
            keep_trying,
            metrics,
        }))
    }

    /// Returns when the Secret of the order is in place, at once when it is already. One that
    /// is usable, though no longer fresh, is replaced in the background.
    ///
    /// `refresh` gives the order anew before each further try.
    pub async fn ensure(
        &self,
        order: Order,
        refresh: impl AsyncTry<(), Order>,
        deadline: Deadline,
    ) -> Result<(), Problem> {
        let inner = &self.0;
        let freshness = match inner.flights.other_inputs(&order) {
            true => Freshness::Stale,
            false => inner.freshness(&order),
        };
        if freshness == Freshness::Fresh {
            return Ok(());
        }
        let pilot = inner.clone();
        let issue = move |order| {
            let pilot = pilot.clone();
            async move { pilot.issue(&order).await }
        };
        let passenger = inner.flights.join(order, issue, refresh, inner.keep_trying);
        if freshness == Freshness::Usable {
            return Ok(());
        }
        deadline.bound(passenger.outcome()).await.unwrap_or_else(|| {
            Err(Problem::new(
                Reason::UpstreamTimeout,
                "Azure did not give the token before the API server's time-out",
            ))
        })
    }
}

// === impl Inner ===

impl Inner {
    fn freshness(&self, order: &Order) -> Freshness {
        let object = self
            .known
            .get(&ObjectRef::new(&order.name).within(&order.namespace));
        match object.as_deref() {
            Some(DeserializeGuard(Ok(object))) => freshness(object, &order.inputs_hash, Timestamp::now()),
            _ => Freshness::Stale,
        }
    }

    async fn issue(&self, order: &Order) -> Result<(), Problem> {
        let issuing = self.metrics.issuing();
        let _permit = self.permits.acquire().await;
        // Another replica may have been quicker while this one waited.
        if self.freshness(order) == Freshness::Fresh {
            return Ok(());
        }
        let result = self.try_issue(order).await;
        drop(issuing);
        let Order { namespace, name, .. } = order;
        let identity = &order.inputs.identity;
        match &result {
            Ok(expires) => {
                tracing::info!(namespace, name, %identity, %expires, "pull secret issued");
            }
            Err(problem) if problem.is_transient() => {
                tracing::warn!(namespace, name, %identity, %problem, "pull secret not issued yet");
            }
            Err(problem) => {
                tracing::info!(namespace, name, %identity, %problem, "pull secret refused");
            }
        }
        result.map(drop)
    }

    async fn try_issue(&self, order: &Order) -> Result<Timestamp, Problem> {
        // Nobody waits for Azure when our own API server has refused already.
        let (owner, token) = tokio::try_join!(self.writer.apply_owner(order), async {
            Ok(self.pull_token(order).await)
        })?;
        if owner.metadata.deletion_timestamp.is_some() {
            return Err(Problem::new(
                Reason::ApiServerUnavailable,
                format!(
                    "ACRPullSecret {}/{} is being deleted; try again when it is gone",
                    order.namespace, order.name
                ),
            ));
        }
        let written = async {
            let minted = token?;
            let uid = self.writer.apply_secret(&owner, order, &minted.token).await?;
            Ok::<_, Problem>((minted, uid))
        };
        let now = Timestamp::now();
        let (result, report) = match written.await {
            Ok((minted, uid)) => {
                let expires = minted.token.expires;
                let report = self.writer.report_success(&owner, order, minted, uid, now).await;
                (Ok(expires), report)
            }
            // The token of before still works: nobody need worry yet.
            Err(problem)
                if problem.is_transient()
                    && freshness(&owner, &order.inputs_hash, now) != Freshness::Stale =>
            {
                (Err(problem), Ok(()))
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

    async fn pull_token(&self, order: &Order) -> Result<Minted, Problem> {
        let Resolved {
            identity,
            registry,
            scope,
        } = &order.inputs;
        let entra = self.tokens.token(identity).await?;
        let token = self
            .registry
            .pull_token(registry, identity.tenant_id(), scope.as_ref(), &entra)
            .await?;
        Ok(Minted {
            token,
            client_id: entra.client_id().map(str::to_owned),
        })
    }
}
