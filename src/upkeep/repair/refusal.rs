//! A token that opens nothing: a registry that refuses the tokens of an identity again after a repair.
//!
//! A registry issues a token to every identity of its tenant, also to one without a role. So only a failed pull shows
//! that the role is missing. The status reports it until a Pod pulls, also while the token is renewed.

use crate::{
    names::{NamespacedName, is_dns_name, is_guid},
    problem::Problem,
    pull_secret::ACRPullSecret,
    registry::role_missing,
    upkeep::Reconciler,
};
use std::time::Duration;

/// How often a Pod is read to find out whether it pulls.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// A registry's refusal of each token of an identity.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The Pod that cannot pull.
    pub pod: NamespacedName,
    /// The inputs of the refused tokens.
    pub inputs_hash: String,
    /// What the status reports.
    pub problem: Problem,
}

impl Refusal {
    /// The refusal of the token of this pull secret, which a Pod confirms.
    pub fn new(owner: &ACRPullSecret, pod: &NamespacedName) -> Option<Self> {
        let status = owner.status.as_ref()?;
        // The webhook itself writes the status, but others with the right to it can write other text, which becomes part
        // of a command.
        let registry = owner.registry().filter(|registry| is_dns_name(registry))?;
        let client_id = status.client_id.as_deref().filter(|id| is_guid(id));
        let problem = role_missing(registry, client_id).at(format_args!("pull of Pod {}", pod.name));
        Some(Self {
            pod: pod.clone(),
            inputs_hash: owner.inputs_hash()?.to_owned(),
            problem,
        })
    }
}

impl Reconciler {
    /// Withdraws the report of a refusal when a Pod pulls. Returns when to check that again.
    pub(super) async fn check_refusal(
        &self,
        owner: &ACRPullSecret,
        key: &NamespacedName,
    ) -> Result<Option<Duration>, Problem> {
        let Some((refusal, wait)) = self.repairs.pending_check(key) else {
            return Ok(None);
        };
        if !wait.is_zero() {
            return Ok(Some(wait));
        }
        self.pod_read_limiter.acquire().await;
        self.repairs.record_pod_read(key);
        let pod = self.read_pod(&refusal.pod).await?;
        let pod = pod.filter(|pod| super::pulls_with(pod, &key.name));
        match (pod, owner.registry()) {
            (Some(pod), Some(registry)) if pod.has_pulled_from(registry) => {
                self.repairs.set_refusal(key, None);
                if self.leadership.still_leads() {
                    self.upkeep.issuer.report_working(key, owner).await;
                }
                Ok(None)
            }
            (Some(_), Some(_)) => Ok(Some(CHECK_INTERVAL)),
            // The Pod was deleted: another Pod shows whether the role is still missing.
            _ => {
                let other = self.usage.pods_naming(key, None, 1).pop();
                let refusal = other.map(|pod| Refusal {
                    pod: (*pod).clone(),
                    ..refusal
                });
                self.repairs.set_refusal(key, refusal);
                Ok(Some(CHECK_INTERVAL))
            }
        }
    }
}
