//! Deleting what no live Pod names: first marked, so that admissions see it coming and take the mark back where a
//! Pod needs it; then, after a while and one more look at the Pods themselves, deleted as it was marked.

use super::{Key, SOON, Work};
use crate::{
    kubernetes::{self, Pod},
    problem::Problem,
    pull_secret::ACRPullSecret,
};
use jiff::Timestamp;
use kube::{Api, api::ListParams, runtime::controller::Action};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Longer than an admission lasts and a watch lags: who took a marked one for unmarked has shown its Pod by then.
const NOTICE: Duration = Duration::from_secs(120);

/// When this leader has seen each mark, by its own clock.
#[derive(Default)]
pub struct Marks(Mutex<HashMap<Key, Instant>>);

impl Marks {
    fn seen_for(&self, key: &Key) -> Duration {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.entry(key.clone()).or_insert_with(Instant::now).elapsed()
    }

    /// The mark is gone, or the pull secret is.
    pub fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

impl Work {
    /// The next step towards the end of a pull secret that nobody has named for so long.
    pub(super) async fn collect(
        &self,
        owner: &ACRPullSecret,
        key: &Key,
        unused: Duration,
    ) -> Result<Action, Problem> {
        let grace = self.upkeep.settings.unused_grace;
        if unused < grace {
            return Ok(Action::requeue((grace - unused).max(SOON)));
        }
        let writer = self.upkeep.issuer.writer();
        if !owner.is_marked_unused() {
            self.collection.forget(key);
            writer.mark_unused(owner, Timestamp::now()).await?;
            return Ok(Action::await_change());
        }
        let (seen, notice) = (self.collection.seen_for(key), NOTICE.min(grace));
        if seen < notice {
            return Ok(Action::requeue((notice - seen).max(SOON)));
        }
        if self.is_named(key).await? {
            writer.mark_used(owner).await?;
            return Ok(Action::requeue(grace));
        }
        if !self.term.still_leads() {
            return Ok(Action::await_change());
        }
        // Bound to what was marked: whoever took the mark back meanwhile has changed it.
        if writer.delete_as_known(owner).await? {
            let (namespace, name) = key;
            tracing::info!(
                namespace,
                name,
                "pull secret collected: no Pod has named it for a while"
            );
            self.upkeep.metrics.collected();
        }
        Ok(Action::requeue(SOON))
    }

    /// Whether a Pod that is not finished names it, asked of the API server and of what the Pods really name.
    async fn is_named(&self, (namespace, name): &Key) -> Result<bool, Problem> {
        let what = format!("listing the Pods of namespace {namespace}");
        let api = Api::<Pod>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let params = ListParams::default().fields(super::watches::NOT_FINISHED);
        let pods = kubernetes::call(&what, api.list(&params)).await?;
        let mut named = pods
            .items
            .iter()
            .flat_map(|pod| pod.spec.image_pull_secrets.iter().flatten());
        Ok(named.any(|secret| secret.name == *name))
    }
}
