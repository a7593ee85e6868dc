//! From an order to a written Secret: assertion, Entra, registry, API server.

use super::{
    ACRPullSecret, ACRPullSecretSpec, ACRPullSecretStatus, GeneratorReference, Writer,
    changes::Changes,
    flight::{AsyncTry, Flights, Passenger},
    freshness::{Freshness, freshness},
    writer::ISSUED,
};
use crate::{
    cluster::Cluster,
    deadline::Deadline,
    events::Events,
    generator::Resolved,
    identity::TokenSource,
    problem::{Problem, Reason},
    registry::{PullToken, RegistryClient},
    telemetry::{Metrics, Readiness},
    watch::{self, Item, Seen, Selector},
};
use jiff::Timestamp;
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What the watch of pull secrets is called.
const WATCH: &str = "watch of ACRPullSecrets";

/// An `ACRPullSecret` as it is watched: one that cannot be decoded hides none of the others.
pub type Guarded = Item<ACRPullSecret>;

/// Why a pull secret is issued.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A Pod is being admitted.
    Admission,
    /// It is time: this is the pull secret as it was when that was seen.
    Renewal(Arc<Guarded>),
    /// Its Secret is missing or spoilt, whatever its state says.
    Repair,
}

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
    /// Where its `ACRPullSecret` is known.
    object: ObjectRef<Guarded>,
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
    known: Store<Guarded>,
    changes: Changes,
    readiness: Readiness,
    events: Events,
    flights: Flights,
    permits: Semaphore,
    keep_trying: bool,
    metrics: Metrics,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer that issues so many pull secrets at the same time; with `keep_trying`, one that trouble does not stop
    /// goes on in the background.
    pub fn new(
        cluster: &Cluster,
        tokens: TokenSource,
        registry: RegistryClient,
        concurrency: u16,
        keep_trying: bool,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        let flights = Flights::default();
        let forget = flights.clone();
        let changes = Changes::default();
        let changed = changes.clone();
        let known = watch::store(
            WATCH,
            cluster,
            cluster.places::<Guarded>(),
            Selector::default(),
            trim,
            move |seen| {
                let reference = match seen {
                    Seen::There(object) => ObjectRef::from_obj(object),
                    Seen::Gone(reference) => {
                        let namespace = reference.namespace.as_deref().unwrap_or_default();
                        forget.forget(namespace, &reference.name);
                        reference
                    }
                };
                changed.add(reference.namespace.unwrap_or_default(), reference.name);
            },
        );
        Self(Arc::new(Inner {
            tokens,
            registry,
            writer: Writer::new(cluster.client.clone()),
            known,
            changes,
            readiness: cluster.readiness.clone(),
            events,
            flights,
            permits: Semaphore::new(concurrency.into()),
            keep_trying,
            metrics,
        }))
    }

    /// Whether the Secret of the order is in place, fresh, and here to stay.
    pub fn has(&self, order: &Order) -> bool {
        let known = self.0.known(order);
        marked_unused(known.as_deref()).is_none()
            && self.0.freshness(known.as_deref(), order) == Freshness::Fresh
    }

    /// Returns when the Secret of the order is in place, at once when it is already. One that
    /// is usable, though no longer fresh, is replaced in the background.
    ///
    /// `refresh` gives the order anew before each further try.
    pub async fn ensure(
        &self,
        order: Arc<Order>,
        refresh: impl AsyncTry<(), Arc<Order>>,
        deadline: Deadline,
    ) -> Result<(), Problem> {
        let inner = &self.0;
        let known = inner.known(&order);
        if let Some(marked) = marked_unused(known.as_deref()) {
            // It is about to be deleted, and this Pod will need it.
            let used = inner.writer.mark_used(marked);
            deadline.bound(used).await.unwrap_or_else(|| Err(late()))?;
        }
        let freshness = inner.freshness(known.as_deref(), &order);
        if freshness == Freshness::Fresh {
            return Ok(());
        }
        let passenger = inner.join(order, Cause::Admission, refresh, inner.keep_trying);
        if freshness == Freshness::Usable {
            return Ok(());
        }
        deadline
            .bound(passenger.outcome())
            .await
            .unwrap_or_else(|| Err(late()))
    }

    /// Issues a pull secret that exists anew; joins whoever does so already.
    pub async fn renew(&self, order: Arc<Order>, cause: Cause) -> Result<(), Problem> {
        if matches!(cause, Cause::Repair) {
            // What has just been issued is what is complained of.
            self.0.flights.forget_outcome(&order);
        }
        // Whoever renews tries again by a plan of its own.
        let refresh = |()| std::future::ready(Err(late()));
        self.0.join(order, cause, refresh, false).outcome().await
    }

    /// Tells of a pull secret that cannot be resolved any more.
    pub async fn report(&self, owner: &ACRPullSecret, problem: &Problem) {
        self.0.report_failure(owner, problem).await;
    }

    /// The pull secrets that exist.
    pub fn store(&self) -> Store<Guarded> {
        self.0.known.clone()
    }

    /// The pull secrets that change, for the one who listens.
    pub fn changes(&self) -> &Changes {
        &self.0.changes
    }

    /// Whether the pull secrets that exist are known, as they were a moment ago.
    pub fn sees(&self) -> bool {
        self.0.readiness.sees(WATCH)
    }

    /// Writes them.
    pub fn writer(&self) -> &Writer {
        &self.0.writer
    }
}

/// What nobody reads, of objects of which there are many.
fn trim(object: &mut ACRPullSecret) {
    let metadata = object.meta_mut();
    metadata.labels = None;
    metadata.annotations = None;
}

fn late() -> Problem {
    Problem::new(
        Reason::UpstreamTimeout,
        "Azure did not give the token before the API server's time-out",
    )
}

/// The pull secret, if it is about to be deleted.
fn marked_unused(known: Option<&Guarded>) -> Option<&ACRPullSecret> {
    match known {
        Some(Item(Ok(known))) => known.is_marked_unused().then_some(known),
        _ => None,
    }
}

/// What the pull secret of this order is worth, as it is known.
fn worth(known: Option<&Guarded>, order: &Order) -> Freshness {
    match known {
        Some(Item(Ok(object))) => freshness(object, &order.inputs_hash, Timestamp::now()),
        _ => Freshness::Stale,
    }
}

// === impl Order ===

impl Order {
    /// An order of a pull secret of this name.
    pub fn new(namespace: &str, name: String, generator: GeneratorReference, inputs: Resolved) -> Self {
        Self {
            namespace: namespace.to_owned(),
            object: ObjectRef::new(&name).within(namespace),
            name,
            generator,
            inputs_hash: inputs.fingerprint(),
            inputs,
        }
    }

    /// The same under another name.
    pub fn rename(&mut self, name: &str) {
        self.object = ObjectRef::new(name).within(&self.namespace);
        self.name = name.to_owned();
    }

    /// One for tests.
    #[cfg(test)]
    pub fn example(inputs_hash: &str) -> Self {
        use crate::identity::{Identity, ManagedIdentity, ManagedIdentityId};
        let suffixes: crate::registry::RegistrySuffixes = "azurecr.io".parse().unwrap();
        let generator = GeneratorReference {
            kind: "ACRAccessToken".to_owned(),
            name: "contoso".to_owned(),
        };
        let inputs = Resolved {
            identity: Identity::Managed(ManagedIdentity {
                id: ManagedIdentityId::SystemAssigned,
                tenant_id: None,
                acr_audience: "https://containerregistry.azure.net".to_owned(),
            }),
            registry: suffixes.permit("contoso.azurecr.io").unwrap(),
            scope: None,
        };
        Self {
            inputs_hash: inputs_hash.to_owned(),
            ..Self::new("team-a", "acr-pull-contoso-app".to_owned(), generator, inputs)
        }
    }

    /// The spec of the `ACRPullSecret`.
    pub fn spec(&self) -> ACRPullSecretSpec {
        let workload = self.inputs.identity.workload();
        let elsewhere = workload.filter(|workload| workload.namespace != self.namespace);
        ACRPullSecretSpec {
            generator: self.generator.clone(),
            service_account_name: workload.map(|workload| workload.service_account.clone()),
            service_account_namespace: elsewhere.map(|workload| workload.namespace.clone()),
        }
    }
}

/// The Secret is what the Pod needs; a status that lags costs one more token later.
fn told(report: Result<(), Problem>) {
    if let Err(problem) = report {
        tracing::warn!(%problem, "the status of an ACRPullSecret was not written");
    }
}

/// When the pull secret was last made anew.
fn renewed(object: Option<&Guarded>) -> Option<Timestamp> {
    let Item(Ok(object)) = object? else {
        return None;
    };
    Some(object.status.as_ref()?.last_renewal_time.as_ref()?.0)
}

// === impl Inner ===

impl Inner {
    fn known(&self, order: &Order) -> Option<Arc<Guarded>> {
        self.known.get(&order.object)
    }

    fn freshness(&self, known: Option<&Guarded>, order: &Order) -> Freshness {
        match self.flights.other_inputs(order) {
            true => Freshness::Stale,
            false => worth(known, order),
        }
    }

    fn join(
        self: &Arc<Self>,
        order: Arc<Order>,
        cause: Cause,
        refresh: impl AsyncTry<(), Arc<Order>>,
        keep_trying: bool,
    ) -> Passenger {
        let pilot = self.clone();
        let issue = move |order: Arc<Order>| {
            let (pilot, cause) = (pilot.clone(), cause.clone());
            async move { pilot.issue(&order, &cause).await }
        };
        self.flights.join(order, issue, refresh, keep_trying)
    }

    /// Whether another replica was quicker while this one waited.
    fn is_done(&self, order: &Order, cause: &Cause) -> bool {
        let known = self.known(order);
        if worth(known.as_deref(), order) != Freshness::Fresh {
            return false;
        }
        match cause {
            Cause::Admission => true,
            Cause::Renewal(seen) => renewed(known.as_deref()) != renewed(Some(seen)),
            Cause::Repair => false,
        }
    }

    async fn issue(&self, order: &Order, cause: &Cause) -> Result<(), Problem> {
        let issuing = self.metrics.issuing();
        let _permit = self.permits.acquire().await;
        if self.is_done(order, cause) {
            return Ok(());
        }
        let result = self.try_issue(order, cause).await;
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

    async fn try_issue(&self, order: &Order, cause: &Cause) -> Result<Timestamp, Problem> {
        let owner = async {
            match cause {
                // It is there, and as it should be: one write less.
                Cause::Renewal(seen) => match &seen.0 {
                    Ok(owner) if owner.spec == order.spec() => Ok(owner.clone()),
                    _ => self.writer.apply_owner(order).await,
                },
                Cause::Admission | Cause::Repair => self.writer.apply_owner(order).await,
            }
        };
        // Nobody waits for Azure when our own API server has refused already.
        let (owner, token) = tokio::try_join!(owner, async { Ok(self.pull_token(order).await) })?;
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
            let uid = self.writer.write_secret(&owner, order, &minted.token).await?;
            Ok::<_, Problem>((minted, uid))
        };
        let now = Timestamp::now();
        let (minted, uid) = match written.await {
            Ok(written) => written,
            Err(problem) => {
                // While the token of before still works, nobody need worry.
                let worry =
                    !problem.is_transient() || freshness(&owner, &order.inputs_hash, now) == Freshness::Stale;
                if worry {
                    self.report_failure(&owner, &problem).await;
                }
                return Err(problem);
            }
        };
        let failed_before = |s: &ACRPullSecretStatus| !s.conditions.is_empty() && !s.is_ready();
        if owner.status.as_ref().is_some_and(failed_before) {
            let note = "the Secret holds a token again";
            self.events.note(owner.object_ref(&()), ISSUED, note);
        }
        let expires = minted.token.expires;
        told(self.writer.report_success(&owner, order, minted, uid, now).await);
        Ok(expires)
    }

    /// In the condition, and where that is news, by an Event.
    async fn report_failure(&self, owner: &ACRPullSecret, problem: &Problem) {
        let reason = problem.reason.as_str();
        let before = owner.status.as_ref().and_then(|s| s.conditions.first());
        if before.is_none_or(|condition| condition.reason != reason) {
            self.events.warn(owner.object_ref(&()), reason, &problem.message);
        }
        told(self.writer.report_failure(owner, problem, Timestamp::now()).await);
    }

    async fn pull_token(&self, order: &Order) -> Result<Minted, Problem> {
        let Resolved {
            identity,
            registry,
            scope,
        } = &order.inputs;
        // Both are far away: the way to them is made while the one before is asked.
        self.registry.open(registry);
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
