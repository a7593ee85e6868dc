//! From an order to a written Secret: assertion, Entra, registry, API server.

use super::{
    ACRPullSecret, ACRPullSecretSpec, AccountOf, GeneratorReference, Writer,
    census::Census,
    changes::Changes,
    flight::{AsyncTry, Flights, Passenger},
    freshness::{Freshness, freshness},
    pair::{Written, gone, is_of_use},
    writer::ISSUED,
};
use crate::{
    cluster::Cluster,
    deadline::Deadline,
    events::Events,
    fair_semaphore::Lane,
    generator::Resolved,
    identity::TokenSource,
    problem::{Problem, Reason},
    registry::{PullToken, RegistryClient},
    telemetry::{Metrics, Readiness},
    transport::{Caller, Gates, Progress, Stage, deadline_exceeded},
    watch::{self, Item, Seen, Selector},
};
use jiff::{SignedDuration, Timestamp};
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::OnceCell;

/// What the watch of pull secrets is called.
const WATCH: &str = "watch of ACRPullSecrets";

/// Marks that are taken back, which are remembered until the watch shows it.
const MOST_MARKS: usize = 1024;

/// A watch that is well shows a change within this.
const DISPUTED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// By uid and resource version.
type Marks = HashMap<(String, String), Arc<OnceCell<bool>>>;

/// How pull secrets are issued.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Whether one that trouble does not stop goes on in the background.
    pub keep_trying: bool,
    /// The most pull secrets of one namespace.
    pub most_in_namespace: u32,
}

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
    /// Whose service account it is made for, where it is made for one.
    pub account_of: Option<AccountOf>,
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
    census: Census,
    marks: Mutex<Marks>,
    gates: Gates,
    settings: Settings,
    metrics: Metrics,
}

// === impl Issuer ===

impl Issuer {
    /// An issuer whose calls go through these gates.
    pub fn new(
        cluster: &Cluster,
        tokens: TokenSource,
        registry: RegistryClient,
        gates: Gates,
        settings: Settings,
        events: Events,
        metrics: Metrics,
    ) -> Self {
        let flights = Flights::default();
        let forget = flights.clone();
        let census = Census::default();
        let counted = census.clone();
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
                    Seen::There(object) => {
                        let reference = ObjectRef::from_obj(object);
                        let namespace = reference.namespace.as_deref().unwrap_or_default();
                        counted.appeared(namespace, &reference.name);
                        reference
                    }
                    Seen::Gone(reference) => {
                        let namespace = reference.namespace.as_deref().unwrap_or_default();
                        forget.forget(namespace, &reference.name);
                        counted.disappeared(namespace, &reference.name);
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
            census,
            marks: Mutex::default(),
            gates,
            settings,
            metrics,
        }))
    }

    /// Whether the Secret of the order is in place, fresh, and here to stay.
    pub fn has(&self, order: &Order) -> bool {
        let known = self.0.known(order);
        marked_unused(known.as_deref()).is_none()
            && self.0.freshness(known.as_deref(), order) == Freshness::Fresh
    }

    /// Whether the pull secret was made a moment ago from other inputs than this order's. One of the two replicas has not seen the
    /// latest change of the generator or the service account, and the token of one of them is the wrong one.
    pub fn is_disputed(&self, order: &Order) -> bool {
        let known = self.0.known(order);
        let Some(Item(Ok(object))) = known.as_deref() else {
            return false;
        };
        let made_from = object.status.as_ref().and_then(|s| s.inputs_hash.as_deref());
        let recently = |renewed: Timestamp| Timestamp::now().duration_since(renewed) < DISPUTED_FOR;
        made_from.is_some_and(|hash| hash != order.inputs_hash)
            && renewed(known.as_deref()).is_some_and(recently)
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
        // Whoever waits inside knows where the time went, and says so before the deadline of the admission.
        let deadline = deadline.inner();
        let known = inner.known(&order);
        let mut freshness = inner.freshness(known.as_deref(), &order);
        if let Some(marked) = marked_unused(known.as_deref()) {
            // It is about to be deleted, and this Pod will need it.
            let used = deadline.bound(inner.mark_used(marked)).await;
            if !used.unwrap_or_else(|| Err(deadline_exceeded(&Stage::Kubernetes)))? {
                freshness = Freshness::Stale;
            }
        }
        if freshness == Freshness::Fresh {
            return Ok(());
        }
        let keep_trying = inner.settings.keep_trying;
        let passenger = inner.join(order, Cause::Admission, refresh, keep_trying)?;
        if freshness == Freshness::Usable {
            return Ok(());
        }
        let place = passenger.place();
        deadline
            .bound(passenger.outcome())
            .await
            .unwrap_or_else(|| Err(deadline_exceeded(&place.stage())))
    }

    /// Issues a pull secret that exists anew; joins whoever does so already.
    pub async fn renew(&self, order: Arc<Order>, cause: Cause) -> Result<(), Problem> {
        if matches!(cause, Cause::Repair) {
            // What has just been issued is what is complained of.
            self.0.flights.forget_success(&order);
        }
        // Whoever renews tries again by a plan of its own.
        let refresh = |()| std::future::ready(Err(deadline_exceeded(&Stage::Kubernetes)));
        self.0.join(order, cause, refresh, false)?.outcome().await
    }

    /// Tells of a pull secret that cannot be resolved any more.
    pub async fn report(&self, owner: &ACRPullSecret, problem: &Problem) {
        self.0.report_failure(owner, None, problem).await;
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
            account_of: None,
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
            service_account_of: workload.and(self.account_of),
        }
    }
}

/// Whether no condition says so already.
fn is_news(owner: &ACRPullSecret, problem: &Problem) -> bool {
    let conditions = owner.status.iter().flat_map(|s| &s.conditions);
    let mut failures = conditions.filter(|condition| condition.status != "True");
    failures.all(|condition| condition.reason != problem.reason.as_str())
}

/// Nobody waits for what is only told.
fn told(report: Result<(), Problem>) {
    if let Err(problem) = report {
        tracing::warn!(%problem, "what became of an ACRPullSecret was not told to the API server");
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
    ) -> Result<Passenger, Problem> {
        let most = self.settings.most_in_namespace;
        let reservation = self.census.reserve(&order.namespace, &order.name, most)?;
        let pilot = self.clone();
        let issue = move |(order, place): (Arc<Order>, Progress)| {
            // Counted for as long as the flight lasts.
            let _ = &reservation;
            let (pilot, cause) = (pilot.clone(), cause.clone());
            async move { pilot.issue(&order, &cause, place).await }
        };
        Ok(self.flights.join(order, issue, refresh, keep_trying))
    }

    /// Takes the mark back, once for all Pods that come before the watch shows it. Whether the object is there as it is
    /// known.
    async fn mark_used(&self, marked: &ACRPullSecret) -> Result<bool, Problem> {
        let key = (
            marked.metadata.uid.clone().unwrap_or_default(),
            marked.metadata.resource_version.clone().unwrap_or_default(),
        );
        let cell = {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if marks.len() >= MOST_MARKS {
                marks.clear();
            }
            marks.entry(key).or_default().clone()
        };
        let used = cell.get_or_try_init(|| self.writer.mark_used(marked)).await;
        used.copied()
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

    async fn issue(&self, order: &Order, cause: &Cause, place: Progress) -> Result<(), Problem> {
        let caller = Caller {
            namespace: order.namespace.as_str().into(),
            lane: match cause {
                Cause::Admission => Lane::Admission,
                Cause::Renewal(_) | Cause::Repair => Lane::Renewal,
            },
            progress: place,
        };
        let issuing = self.metrics.issuing();
        if self.is_done(order, cause) {
            return Ok(());
        }
        let result = self.try_issue(order, cause, &caller).await;
        drop(issuing);
        let Order { namespace, name, .. } = order;
        let identity = &order.inputs.identity;
        match &result {
            Ok(Some(expires)) => {
                tracing::info!(namespace, name, %identity, %expires, "pull secret issued");
            }
            Ok(None) => tracing::debug!(namespace, name, "another replica has issued the pull secret"),
            Err(problem) if problem.is_transient() => {
                tracing::warn!(namespace, name, %identity, %problem, "pull secret not issued yet");
            }
            Err(problem) => {
                tracing::info!(namespace, name, %identity, %problem, "pull secret refused");
            }
        }
        result.map(drop)
    }

    /// When the token ends; none where another replica was quicker.
    async fn try_issue(
        &self,
        order: &Order,
        cause: &Cause,
        caller: &Caller,
    ) -> Result<Option<Timestamp>, Problem> {
        let was_known = self.known(order).is_some();
        let apply = || self.gates.kubernetes(caller, || self.writer.apply_owner(order));
        let owner = async {
            match cause {
                // It is there, and as it should be: one write less.
                Cause::Renewal(seen) => match &seen.0 {
                    Ok(owner) if owner.spec == order.spec() => Ok(owner.clone()),
                    _ => apply().await,
                },
                Cause::Admission | Cause::Repair => apply().await,
            }
        };
        let token = self.pull_token(order, caller);
        let (owner, token) = if matches!(cause, Cause::Admission) && self.flights.was_refused(order) {
            // It is likely to be refused again, and needs no object then.
            match token.await {
                Err(problem) if !problem.is_transient() => return Err(problem),
                token => (owner.await?, token),
            }
        } else {
            // Nobody waits for Azure when our own API server has refused already.
            tokio::try_join!(owner, async { Ok(token.await) })?
        };
        if owner.metadata.deletion_timestamp.is_some() {
            return Err(Problem::new(
                Reason::ApiServerUnavailable,
                format!(
                    "ACRPullSecret {}/{} is being deleted; try again when it is gone",
                    order.namespace, order.name
                ),
            ));
        }
        let now = Timestamp::now();
        let written = async {
            let minted = token?;
            self.check_is_same(&owner, order, cause)?;
            let write = || self.writer.write(owner.clone(), order, &minted, now);
            let written = self.gates.kubernetes(caller, write).await?;
            Ok::<_, Problem>((minted.token, written))
        };
        match written.await {
            // The Secret is written all the same: it may open what this Pod needs.
            Ok((
                PullToken {
                    lacks: Some(problem), ..
                },
                Written::Ours,
            )) => {
                if is_news(&owner, &problem) {
                    self.events
                        .warn(owner.object_ref(&()), problem.reason.as_str(), &problem.message);
                }
                Err(problem)
            }
            Ok((PullToken { expires, .. }, Written::Ours)) => {
                if owner.status.as_ref().is_some_and(|s| s.has_failed()) {
                    let note = "the Secret holds a token again";
                    self.events.note(owner.object_ref(&()), ISSUED, note);
                }
                Ok(Some(expires))
            }
            Ok((_, Written::Anothers)) => Ok(None),
            Err(problem) => {
                // A refusal leaves nothing behind. Whatever else happened to the object meanwhile keeps it.
                let is_new = !was_known && owner.status.is_none() && matches!(cause, Cause::Admission);
                if is_new && !problem.is_transient() {
                    let delete = || self.writer.delete_as_known(&owner);
                    told(self.gates.kubernetes(caller, delete).await.map(drop));
                } else {
                    let report = || self.report_failure(&owner, Some(order), &problem);
                    self.gates.kubernetes(caller, report).await;
                }
                Err(problem)
            }
        }
    }

    /// A Secret that is written for an object which is gone is deleted with it, though another object of that name says
    /// that it is there.
    fn check_is_same(&self, owner: &ACRPullSecret, order: &Order, cause: &Cause) -> Result<(), Problem> {
        match self.known(order) {
            Some(known) if known.meta().uid != owner.metadata.uid => {
                // This watch may lag behind the object that was just applied; what a renewal has seen came from it.
                match cause {
                    Cause::Renewal(_) => Err(gone(order)),
                    Cause::Admission | Cause::Repair => Ok(()),
                }
            }
            None if matches!(cause, Cause::Renewal(_)) => Err(gone(order)),
            _ => Ok(()),
        }
    }

    /// In the condition, and where that is news, by an Event.
    async fn report_failure(&self, owner: &ACRPullSecret, order: Option<&Order>, problem: &Problem) {
        let now = Timestamp::now();
        // While the token of before still works, nobody need worry.
        if problem.is_transient() && is_of_use(owner, now) {
            return;
        }
        if is_news(owner, problem) {
            self.events
                .warn(owner.object_ref(&()), problem.reason.as_str(), &problem.message);
        }
        told(self.writer.report_failure(owner, order, problem, now).await);
    }

    async fn pull_token(&self, order: &Order, caller: &Caller) -> Result<Minted, Problem> {
        let Resolved {
            identity,
            registry,
            scope,
        } = &order.inputs;
        // Both are far away: the way to them is made while the one before is asked.
        self.registry.open(registry);
        let entra = self.tokens.token(identity, caller).await?;
        let token = self
            .registry
            .pull_token(registry, identity.tenant_id(), scope.as_ref(), &entra, caller)
            .await?;
        Ok(Minted {
            token,
            client_id: entra.client_id().map(str::to_owned),
        })
    }
}
