//! Keeps the Secret and the status consistent, which are two writes.
//!
//! Two replicas may issue the same pull secret at the same time, and from different inputs where one of them has not
//! yet seen a change. So each write requires the version that its writer knows. The status holds the resource version
//! of the Secret that it describes; the Secret is replaced only from that version, and the status only from the version
//! that its writer has seen. A writer that meets another version reads the object again and decides again.

use super::{
    ACRPullSecret, ACRPullSecretStatus, IssuedToken, PullSecretPlan, Writer,
    freshness::{Freshness, freshness},
    resource::ISSUED,
    writer::{ReplaceError, Version},
};
use crate::{
    identity::WorkloadIdentity,
    names::NamespacedName,
    problem::{Problem, Reason},
    registry::PullToken,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::time::Duration;
use tokio::time::sleep;

/// A replica that has written the Secret writes the status immediately. After this time it has probably died.
const STATUS_TIMEOUT: Duration = Duration::from_secs(2);
const STATUS_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// Others write the status too, such as the leader when it marks an unused pull secret.
const MAX_ATTEMPTS: u32 = 5;
/// The message of a Ready condition that is true.
const HOLDS_TOKEN: &str = "the Secret holds a token";

/// The outcome of a write.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// The Secret holds this token.
    Done,
    /// The Secret holds a token that another replica issued from the same inputs.
    ByAnotherReplica,
}

impl Writer {
    /// Writes the token into the Secret, and describes it in the status.
    pub async fn write(
        &self,
        mut owner: ACRPullSecret,
        plan: &PullSecretPlan,
        issued: &IssuedToken,
        now: Timestamp,
    ) -> Result<Written, Problem> {
        let token = &issued.token;
        let Some(mut version) = self.write_secret(&mut owner, plan, token, now).await? else {
            return Ok(Written::ByAnotherReplica);
        };
        let seen = described_secret(&owner);
        for _ in 0..MAX_ATTEMPTS {
            let status = status(&owner, plan, issued, &version, now);
            match self.apply_status(plan.key(), &owner, &status).await {
                Ok(true) => return Ok(Written::Done),
                Ok(false) => {}
                // The Pod needs only the Secret; an outdated status costs one more token later.
                Err(problem) => {
                    tracing::warn!(%problem, "the status of an ACRPullSecret was not written");
                    return Ok(Written::Done);
                }
            }
            let live = self.live_with_same_uid(plan.key(), &owner).await?;
            let described = described_secret(&live);
            owner = live;
            if described == seen || described.as_ref() == Some(&version) {
                continue;
            }
            // Another replica has written both meanwhile. Only the Secret shows which write was the last.
            match self.replace_known(&owner, plan, token, &version).await {
                Ok(again) => version = again,
                Err(ReplaceError::Failed(problem)) => return Err(problem),
                Err(ReplaceError::Changed) if is_fresh(&owner, plan, now) => {
                    return Ok(Written::ByAnotherReplica);
                }
                Err(ReplaceError::Changed) => return Err(overwritten(plan)),
            }
        }
        tracing::warn!(
            namespace = plan.namespace().as_str(),
            name = plan.name().as_str(),
            "the status of an ACRPullSecret changes too often to be written"
        );
        Ok(Written::Done)
    }

    /// Returns the version of the Secret that was written, or `None` if another replica was quicker with the same
    /// inputs.
    async fn write_secret(
        &self,
        owner: &mut ACRPullSecret,
        plan: &PullSecretPlan,
        token: &PullToken,
        now: Timestamp,
    ) -> Result<Option<Version>, Problem> {
        let Some(mut known) = described_secret(owner) else {
            return self.create_or_replace(owner, plan, token).await.map(Some);
        };
        let mut waited = Duration::ZERO;
        loop {
            match self.replace_known(owner, plan, token, &known).await {
                Ok(version) => return Ok(Some(version)),
                Err(ReplaceError::Failed(problem)) => return Err(problem),
                Err(ReplaceError::Changed) => {}
            }
            // Without a resource version only the uid can differ: the known Secret was deleted.
            if known.resource_version.is_none() {
                return self.create_or_replace(owner, plan, token).await.map(Some);
            }
            *owner = self.live_with_same_uid(plan.key(), owner).await?;
            match described_secret(owner) {
                Some(described) if described != known => {
                    if is_fresh(owner, plan, now) {
                        return Ok(None);
                    }
                    known = described;
                }
                _ if waited < STATUS_TIMEOUT => {
                    sleep(STATUS_POLL_INTERVAL).await;
                    waited += STATUS_POLL_INTERVAL;
                }
                // No status describes the write: a person made it, or a replica that has died.
                _ => {
                    let any = Version {
                        resource_version: None,
                        ..known.clone()
                    };
                    return match self.replace_known(owner, plan, token, &any).await {
                        Ok(version) => Ok(Some(version)),
                        Err(ReplaceError::Failed(problem)) => Err(problem),
                        Err(ReplaceError::Changed) => {
                            self.create_or_replace(owner, plan, token).await.map(Some)
                        }
                    };
                }
            }
        }
    }

    /// Reports a failure: in the Ready condition if the Secret does not work, otherwise in the Renewed condition.
    pub async fn report_failure(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        problem: &Problem,
        now: Timestamp,
    ) -> Result<(), Problem> {
        self.update_status(key, owner, |owner| failed(owner, problem, now))
            .await
    }

    /// Reports that the token works, although the status says that its registry refuses it.
    pub async fn report_working(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        now: Timestamp,
    ) -> Result<(), Problem> {
        self.update_status(key, owner, |owner| working(owner, now)).await
    }

    /// Writes the status that `change` makes of the object, as it is known or as the API server has it.
    async fn update_status(
        &self,
        key: &NamespacedName,
        owner: &ACRPullSecret,
        change: impl Fn(&ACRPullSecret) -> ACRPullSecretStatus,
    ) -> Result<(), Problem> {
        let mut owner = owner.clone();
        for _ in 0..MAX_ATTEMPTS {
            let status = change(&owner);
            if self.apply_status(key, &owner, &status).await? {
                return Ok(());
            }
            match self.live(key).await? {
                Some(live) if live.metadata.uid == owner.metadata.uid => owner = live,
                // The object was deleted.
                _ => return Ok(()),
            }
        }
        Ok(())
    }
}

fn overwritten(plan: &PullSecretPlan) -> Problem {
    Problem::new(
        Reason::ApiServerUnavailable,
        format!(
            "another replica wrote Secret {} from other inputs at the same time: try again",
            plan.key()
        ),
    )
}

/// The Secret that the status describes.
fn described_secret(owner: &ACRPullSecret) -> Option<Version> {
    let status = owner.status.as_ref()?;
    Some(Version {
        uid: status.secret_uid.clone()?,
        resource_version: status.secret_resource_version.clone(),
    })
}

fn is_fresh(owner: &ACRPullSecret, plan: &PullSecretPlan, now: Timestamp) -> bool {
    freshness(owner, &plan.inputs_hash, now) == Freshness::Fresh
}

fn status(
    owner: &ACRPullSecret,
    plan: &PullSecretPlan,
    IssuedToken {
        token,
        client_id,
        refusal,
    }: &IssuedToken,
    version: &Version,
    now: Timestamp,
) -> ACRPullSecretStatus {
    let inputs = &plan.inputs;
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
        inputs_hash: Some(plan.inputs_hash.clone()),
        secret_uid: Some(version.uid.clone()),
        secret_resource_version: version.resource_version.clone(),
        unused_since: None,
    };
    let (ready, reason, message) = match token.scope_problem.as_ref().or(refusal.as_ref()) {
        None => (true, ISSUED, HOLDS_TOKEN.to_owned()),
        Some(problem) => (false, problem.reason.as_str(), problem.message()),
    };
    status.set_ready(ready, reason, &message, owner.metadata.generation, Time(now));
    status
}

/// The status without the field that another field manager owns.
fn own_status(owner: &ACRPullSecret) -> ACRPullSecretStatus {
    ACRPullSecretStatus {
        unused_since: None,
        ..owner.status.clone().unwrap_or_default()
    }
}

fn working(owner: &ACRPullSecret, now: Timestamp) -> ACRPullSecretStatus {
    let mut status = own_status(owner);
    status.set_ready(true, ISSUED, HOLDS_TOKEN, owner.metadata.generation, Time(now));
    status
}

fn failed(owner: &ACRPullSecret, problem: &Problem, now: Timestamp) -> ACRPullSecretStatus {
    let mut status = own_status(owner);
    let (reason, message) = (problem.reason.as_str(), &problem.message());
    let generation = owner.metadata.generation;
    match is_working(owner, now) {
        true => status.set_not_renewed(reason, message, generation, Time(now)),
        false => status.set_ready(false, reason, message, generation, Time(now)),
    }
    status
}

/// Whether the token still works, whatever the present inputs are.
pub fn is_working(owner: &ACRPullSecret, now: Timestamp) -> bool {
    owner
        .inputs_hash()
        .is_some_and(|hash| freshness(owner, hash, now) != Freshness::Stale)
}
