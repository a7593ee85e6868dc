//! From a plan to a written Secret: assertion, Entra, registry, Kubernetes API.

use super::{
    ACRPullSecret, IssuedToken, PullSecretPlan, PullSecrets, WatchedPullSecret, Writer,
    freshness::{Freshness, decoded, freshness_of, marked_unused},
    pair::{Written, is_working},
    resource::ISSUED,
    writer::owner_deleted,
};
use crate::{
    events::Events,
    fair_semaphore::Lane,
    generator::TokenInputs,
    identity::TokenSource,
    names::NamespacedName,
    problem::{Problem, Reason},
    registry::{PullToken, RegistryClient},
    telemetry::Metrics,
    transport::{Caller, Gates, Progress},
};
use jiff::Timestamp;
use kube::Resource;
use std::sync::Arc;

/// Why a pull secret is issued.
#[derive(Clone, Debug)]
pub enum Cause {
    /// A Pod is being admitted.
    Admission,
    /// The token is due.
    Renewal {
        /// The pull secret as it was when that was noticed.
        seen: Arc<WatchedPullSecret>,
        /// Why the registry refused the tokens before this one.
        refusal: Option<Problem>,
    },
    /// The Secret is missing, or its registry refuses the token, whatever the status says.
    Repair {
        /// Why the registry refused the tokens before this one, if a repair did not help.
        refusal: Option<Problem>,
    },
}

impl Cause {
    /// Why the registry refused the tokens before this one. The next token probably is as useless, so the status keeps
    /// reporting this until a Pod pulls.
    fn refusal(&self) -> Option<&Problem> {
        match self {
            Self::Admission => None,
            Self::Renewal { refusal, .. } | Self::Repair { refusal } => refusal.as_ref(),
        }
    }
}

/// Everything that takes part in issuing a pull secret.
pub struct Issuance {
    /// Entra tokens.
    pub tokens: TokenSource,
    /// Registries' tokens.
    pub registry: RegistryClient,
    /// The gates of all calls.
    pub gates: Gates,
    /// Writes the result.
    pub writer: Writer,
    /// The pull secrets that exist.
    pub pull_secrets: PullSecrets,
    /// Events about pull secrets.
    pub events: Events,
    /// The metrics.
    pub metrics: Metrics,
}

impl Issuance {
    /// Issues the pull secret of a plan, unless another replica has just done so.
    pub async fn issue(
        &self,
        plan: &PullSecretPlan,
        cause: &Cause,
        was_refused: bool,
        progress: Progress,
    ) -> Result<(), Problem> {
        if self.is_done(plan, cause) {
            return Ok(());
        }
        let caller = Caller {
            namespace: plan.namespace().as_str().into(),
            lane: match cause {
                Cause::Admission => Lane::Admission,
                Cause::Renewal { .. } | Cause::Repair { .. } => Lane::Renewal,
            },
            progress,
        };
        let issuing = self.metrics.track_issuing();
        let result = self.issue_as(plan, cause, was_refused, &caller).await;
        drop(issuing);
        log(plan, &result);
        result.map(drop)
    }

    /// Whether another replica was quicker.
    fn is_done(&self, plan: &PullSecretPlan, cause: &Cause) -> bool {
        let known = self.pull_secrets.planned(plan);
        let known = known.as_deref();
        // The watch may be behind: a pull secret whose deletion was announced may be deleted already.
        if marked_unused(known).is_some() || freshness_of(known, &plan.inputs_hash) != Freshness::Fresh {
            return false;
        }
        match cause {
            Cause::Admission => true,
            Cause::Renewal { seen, .. } => {
                let last_renewal = |object| decoded(object).and_then(ACRPullSecret::last_renewal);
                last_renewal(known) != last_renewal(Some(seen))
            }
            Cause::Repair { .. } => false,
        }
    }

    /// Returns when the token expires, or `None` if another replica was quicker.
    async fn issue_as(
        &self,
        plan: &PullSecretPlan,
        cause: &Cause,
        was_refused: bool,
        caller: &Caller,
    ) -> Result<Option<Timestamp>, Problem> {
        let was_known = self.pull_secrets.planned(plan).is_some();
        let (owner, token) = self.owner_and_token(plan, cause, was_refused, caller).await?;
        if owner.metadata.deletion_timestamp.is_some() {
            return Err(Problem::new(
                Reason::ApiServerUnavailable,
                format!(
                    "ACRPullSecret {} is being deleted: try again when it is gone",
                    plan.key()
                ),
            ));
        }
        match self.write(&owner, token, plan, cause, caller).await {
            Ok(written) => self.report_success(&owner, written, cause),
            Err(problem) => {
                // A refusal leaves no object behind, unless the object existed before.
                let is_new = !was_known && owner.status.is_none() && matches!(cause, Cause::Admission);
                if is_new && !problem.is_transient() {
                    let delete = || self.writer.delete_as_known(plan.key(), &owner);
                    log_failure(self.gates.kubernetes(caller, delete).await.map(drop));
                } else {
                    let report = || self.report_failure(plan.key(), &owner, &problem);
                    self.gates.kubernetes(caller, report).await;
                }
                Err(problem)
            }
        }
    }

    /// Writes the `ACRPullSecret` and gets the token, both at the same time.
    async fn owner_and_token(
        &self,
        plan: &PullSecretPlan,
        cause: &Cause,
        was_refused: bool,
        caller: &Caller,
    ) -> Result<(ACRPullSecret, Result<IssuedToken, Problem>), Problem> {
        let apply = || self.gates.kubernetes(caller, || self.writer.apply_owner(plan));
        let owner = async {
            match cause {
                // A renewal needs no write where the object exists and its spec is right.
                Cause::Renewal { seen, .. } => match &seen.0 {
                    Ok(owner) if self.writer.is_up_to_date(owner, plan) => Ok(owner.clone()),
                    _ => apply().await,
                },
                Cause::Admission | Cause::Repair { .. } => apply().await,
            }
        };
        let token = self.token(plan, caller);
        if matches!(cause, Cause::Admission) && was_refused {
            // Another refusal is likely, and then no object is needed.
            return match token.await {
                Err(problem) if !problem.is_transient() => Err(problem),
                token => Ok((owner.await?, token)),
            };
        }
        // A refusal of the API server ends the wait for Azure.
        tokio::try_join!(owner, async { Ok(token.await) })
    }

    async fn token(&self, plan: &PullSecretPlan, caller: &Caller) -> Result<IssuedToken, Problem> {
        let TokenInputs {
            identity,
            registry,
            scope,
        } = &plan.inputs;
        // The connection to the registry is opened while Entra is asked.
        self.registry.preconnect(registry);
        let entra = self.tokens.token(identity, caller).await?;
        let tenant = identity.tenant_id();
        let token = self
            .registry
            .pull_token(registry, tenant, scope.as_ref(), &entra, caller)
            .await?;
        Ok(IssuedToken {
            token: token.scope_corrected_by(|| plan.patch_scope_command()),
            client_id: entra.client_id().map(str::to_owned),
            refusal: None,
        })
    }

    /// The token that was written, or `None` if another replica was quicker.
    async fn write(
        &self,
        owner: &ACRPullSecret,
        token: Result<IssuedToken, Problem>,
        plan: &PullSecretPlan,
        cause: &Cause,
        caller: &Caller,
    ) -> Result<Option<PullToken>, Problem> {
        let issued = IssuedToken {
            refusal: cause.refusal().cloned(),
            ..token?
        };
        self.check_same_owner(owner, plan, cause)?;
        let write = || self.writer.write(owner.clone(), plan, &issued, Timestamp::now());
        match self.gates.kubernetes(caller, write).await? {
            Written::Done => Ok(Some(issued.token)),
            Written::ByAnotherReplica => Ok(None),
        }
    }

    /// A renewal must not write a Secret for an object that was deleted: the Secret would be deleted with it, although
    /// another object of that name reports that the Secret exists.
    fn check_same_owner(
        &self,
        owner: &ACRPullSecret,
        plan: &PullSecretPlan,
        cause: &Cause,
    ) -> Result<(), Problem> {
        // The watch may lag behind an object that was just applied; the object of a renewal came from the watch.
        if !matches!(cause, Cause::Renewal { .. }) {
            return Ok(());
        }
        match self.pull_secrets.planned(plan) {
            Some(known) if known.meta().uid == owner.metadata.uid => Ok(()),
            _ => Err(owner_deleted(plan.key())),
        }
    }

    fn report_success(
        &self,
        owner: &ACRPullSecret,
        written: Option<PullToken>,
        cause: &Cause,
    ) -> Result<Option<Timestamp>, Problem> {
        let Some(token) = written else {
            return Ok(None);
        };
        if let Some(problem) = token.scope_problem {
            self.warn_once(owner, &problem);
            return Err(problem);
        }
        if let Some(refusal) = cause.refusal() {
            self.warn_once(owner, refusal);
            return Ok(Some(token.expires));
        }
        if owner.status.as_ref().is_some_and(|status| status.has_failed()) {
            let note = "the Secret holds a token again";
            self.events.note(owner.object_ref(&()), ISSUED, note);
        }
        Ok(Some(token.expires))
    }

    /// Reports a failure in the conditions and, where no condition reports it already, by an Event.
    pub async fn report_failure(&self, key: &NamespacedName, owner: &ACRPullSecret, problem: &Problem) {
        let now = Timestamp::now();
        // While the present token works, a transient failure needs nobody's attention.
        if problem.is_transient() && !problem.reason.awaits_propagation() && is_working(owner, now) {
            return;
        }
        self.warn_once(owner, problem);
        log_failure(self.writer.report_failure(key, owner, problem, now).await);
    }

    /// Reports that a Pod pulls with the token of a pull secret whose status reported a refusal.
    pub async fn report_working(&self, key: &NamespacedName, owner: &ACRPullSecret) {
        let note = "a Pod pulls with the Secret";
        self.events.note(owner.object_ref(&()), ISSUED, note);
        log_failure(self.writer.report_working(key, owner, Timestamp::now()).await);
    }

    /// Reports a problem by an Event, unless a condition reports it already.
    fn warn_once(&self, owner: &ACRPullSecret, problem: &Problem) {
        let reason = problem.reason.as_str();
        let conditions = owner.status.iter().flat_map(|status| &status.conditions);
        let mut failures = conditions.filter(|condition| condition.status != "True");
        if failures.all(|condition| condition.reason != reason) {
            self.events
                .warn(owner.object_ref(&()), reason, &problem.message());
        }
    }
}

fn log(plan: &PullSecretPlan, result: &Result<Option<Timestamp>, Problem>) {
    let (namespace, name) = (plan.namespace().as_str(), plan.name().as_str());
    let identity = &plan.inputs.identity;
    match result {
        Ok(Some(expires)) => {
            tracing::info!(namespace, name, %identity, %expires, "pull secret issued");
        }
        Ok(None) => tracing::debug!(namespace, name, "another replica has issued the pull secret"),
        Err(problem) if problem.reason == Reason::ScopeNotGranted => {
            tracing::info!(namespace, name, %identity, %problem, "pull secret issued, and its token is incomplete");
        }
        Err(problem) if problem.is_transient() => {
            tracing::warn!(namespace, name, %identity, %problem, "pull secret not issued yet");
        }
        Err(problem) => {
            tracing::info!(namespace, name, %identity, %problem, "pull secret refused");
        }
    }
}

/// A status or a deletion that fails costs the Pod nothing.
fn log_failure(result: Result<(), Problem>) {
    if let Err(problem) = result {
        tracing::warn!(%problem, "an ACRPullSecret was not brought up to date");
    }
}
