//! The Secret and the status that tells of it: two writes that nothing but this ties together.
//!
//! Two replicas may make the same pull secret at the same time, and from different inputs where one of them has not yet seen
//! a change. So each write is bound to what its writer knows. The status names the resource version of the Secret
//! that it tells of; the Secret is replaced only from that version, and the status only from the one that its writer has
//! seen. Whoever finds something else looks afresh and decides again.

use super::{
    ACRPullSecret, ACRPullSecretStatus, Order, Writer,
    freshness::{Freshness, freshness},
    issuer::Minted,
    writer::{ISSUED, Unwritten, Version},
};
use crate::{
    identity::WorkloadIdentity,
    problem::{Problem, Reason},
    registry::PullToken,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use tokio::time::sleep;

/// A replica that has written the Secret writes the status at once. One that has not done so within this is gone.
const STATUS_FOLLOWS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(250);
/// Others write the status too, such as the leader its mark.
const TRIES: u32 = 5;

/// What became of a token.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the Secret.
    Ours,
    /// Another replica has put one there that was made from the same inputs.
    Anothers,
}

// === impl Writer ===

impl Writer {
    /// Puts the token into the Secret, and tells of it in the status.
    pub async fn write(
        &self,
        mut owner: ACRPullSecret,
        order: &Order,
        minted: &Minted,
        now: Timestamp,
    ) -> Result<Written, Problem> {
        let token = &minted.token;
        let Some(mut version) = self.write_secret(&mut owner, order, token, now).await? else {
            return Ok(Written::Anothers);
        };
        let seen = told_of(&owner);
        for _ in 0..TRIES {
            let status = status(&owner, order, minted, &version, now);
            match self.apply_status(&owner, &status).await {
                Ok(true) => return Ok(Written::Ours),
                Ok(false) => {}
                // The Secret is what the Pod needs; a status that lags costs one more token later.
                Err(problem) => {
                    tracing::warn!(%problem, "the status of an ACRPullSecret was not written");
                    return Ok(Written::Ours);
                }
            }
            let live = self.same(&owner, order).await?;
            let told = told_of(&live);
            owner = live;
            if told == seen || told.as_ref() == Some(&version) {
                continue;
            }
            // Another replica has written both meanwhile. Which Secret was the last one, only the Secret can tell.
            match self.replace_known(&owner, order, token, &version).await {
                Ok(again) => version = again,
                Err(Unwritten::Failed(problem)) => return Err(problem),
                Err(Unwritten::Changed) if is_fresh(&owner, order, now) => return Ok(Written::Anothers),
                Err(Unwritten::Changed) => return Err(overtaken(order)),
            }
        }
        tracing::warn!(
            namespace = order.namespace,
            name = order.name,
            "the status of an ACRPullSecret changes too often to be written"
        );
        Ok(Written::Ours)
    }

    /// The version of the Secret that was written; none where another replica was quicker with the same inputs.
    async fn write_secret(
        &self,
        owner: &mut ACRPullSecret,
        order: &Order,
        token: &PullToken,
        now: Timestamp,
    ) -> Result<Option<Version>, Problem> {
        let Some(mut known) = told_of(owner) else {
            return self.create_or_replace(owner, order, token).await.map(Some);
        };
        let mut waited = Duration::ZERO;
        loop {
            match self.replace_known(owner, order, token, &known).await {
                Ok(version) => return Ok(Some(version)),
                Err(Unwritten::Failed(problem)) => return Err(problem),
                Err(Unwritten::Changed) => {}
            }
            // Without a resource version only another uid can have been the reason: that Secret is gone.
            if known.resource_version.is_none() {
                return self.create_or_replace(owner, order, token).await.map(Some);
            }
            *owner = self.same(owner, order).await?;
            match told_of(owner) {
                Some(told) if told != known => {
                    if is_fresh(owner, order, now) {
                        return Ok(None);
                    }
                    known = told;
                }
                _ if waited < STATUS_FOLLOWS => {
                    sleep(LOOK).await;
                    waited += LOOK;
                }
                // Nobody tells of the write: a person's, or that of a replica which has died.
                _ => {
                    let any = Version {
                        resource_version: None,
                        ..known.clone()
                    };
                    return match self.replace_known(owner, order, token, &any).await {
                        Ok(version) => Ok(Some(version)),
                        Err(Unwritten::Failed(problem)) => Err(problem),
                        Err(Unwritten::Changed) => {
                            self.create_or_replace(owner, order, token).await.map(Some)
                        }
                    };
                }
            }
        }
    }

    /// Tells of a failure: where the Secret is of no use, by the Ready condition, otherwise by one of its own.
    pub async fn report_failure(
        &self,
        owner: &ACRPullSecret,
        order: Option<&Order>,
        problem: &Problem,
        now: Timestamp,
    ) -> Result<(), Problem> {
        let mut owner = owner.clone();
        for _ in 0..TRIES {
            let status = failed(&owner, problem, now);
            if self.apply_status(&owner, &status).await? {
                return Ok(());
            }
            let Some(order) = order else {
                return Ok(());
            };
            match self.live(order).await? {
                Some(live) if live.metadata.uid == owner.metadata.uid => owner = live,
                // There is nothing any more to tell of.
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// The object as it is now, if it still is that object.
    pub(super) async fn same(&self, owner: &ACRPullSecret, order: &Order) -> Result<ACRPullSecret, Problem> {
        match self.live(order).await? {
            Some(live) if live.metadata.uid == owner.metadata.uid => Ok(live),
            _ => Err(gone(order)),
        }
    }
}

/// The object that the Secret was to belong to is gone, and its Secret goes with it.
pub fn gone(order: &Order) -> Problem {
    Problem::new(
        Reason::ApiServerUnavailable,
        format!(
            "ACRPullSecret {}/{} was deleted while its token was fetched; try again",
            order.namespace, order.name
        ),
    )
}

fn overtaken(order: &Order) -> Problem {
    Problem::new(
        Reason::ApiServerUnavailable,
        format!(
            "another replica has written Secret {}/{} for other inputs at the same time; try again",
            order.namespace, order.name
        ),
    )
}

/// The Secret that the status tells of.
fn told_of(owner: &ACRPullSecret) -> Option<Version> {
    let status = owner.status.as_ref()?;
    Some(Version {
        uid: status.secret_uid.clone()?,
        resource_version: status.secret_resource_version.clone(),
    })
}

fn is_fresh(owner: &ACRPullSecret, order: &Order, now: Timestamp) -> bool {
    freshness(owner, &order.inputs_hash, now) == Freshness::Fresh
}

fn status(
    owner: &ACRPullSecret,
    order: &Order,
    Minted { token, client_id }: &Minted,
    version: &Version,
    now: Timestamp,
) -> ACRPullSecretStatus {
    let inputs = &order.inputs;
    let mut status = ACRPullSecretStatus {
        conditions: owner.status.clone().unwrap_or_default().conditions,
        registry: Some(inputs.registry.to_string()),
        scope: inputs.scope.as_ref().map(ToString::to_string),
        identity: Some(inputs.identity.kind().to_owned()),
        subject: inputs.identity.workload().map(WorkloadIdentity::subject),
        client_id: client_id.clone(),
        tenant_id: inputs.identity.tenant_id().map(str::to_owned),
        expiration_time: Some(Time(token.expires)),
        last_renewal_time: Some(Time(now)),
        inputs_hash: Some(order.inputs_hash.clone()),
        secret_uid: Some(version.uid.clone()),
        secret_resource_version: version.resource_version.clone(),
        unused_since: None,
    };
    let message = "the Secret holds a token";
    status.set_ready(true, ISSUED, message, owner.metadata.generation, Time(now));
    status
}

fn failed(owner: &ACRPullSecret, problem: &Problem, now: Timestamp) -> ACRPullSecretStatus {
    let mut status = ACRPullSecretStatus {
        // Somebody else's word.
        unused_since: None,
        ..owner.status.clone().unwrap_or_default()
    };
    let (reason, message) = (problem.reason.as_str(), &problem.message);
    let generation = owner.metadata.generation;
    match is_of_use(owner, now) {
        true => status.set_not_renewed(reason, message, generation, Time(now)),
        false => status.set_ready(false, reason, message, generation, Time(now)),
    }
    status
}

/// Whether the Secret still pulls for the Pods that it was made for, whatever is wished for now.
pub fn is_of_use(owner: &ACRPullSecret, now: Timestamp) -> bool {
    let hash = owner.status.as_ref().and_then(|s| s.inputs_hash.as_deref());
    hash.is_some_and(|hash| freshness(owner, hash, now) != Freshness::Stale)
}
