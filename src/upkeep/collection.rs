//! Deleting what no live Pod names: first marked, so that admissions see it coming and take the mark back where a
//! Pod needs it; then, after a while and one more look at the Pods themselves, deleted as it was marked.
//!
//! The grace before the mark is counted by this leader alone, from when it saw the last Pod go or the pull secret first; with
//! a new leader it begins again. To write its beginning into the status would cost a write at each end of a last Pod, and
//! another one, on the way of an admission, at each next Pod.

use super::{FAR, Key, Work, schedule::chance};
use crate::{
    kubernetes::{CallError, Pod, api_problem},
    problem::Problem,
    pull_secret::ACRPullSecret,
    watch::{self, Item, ReadError},
};
use jiff::Timestamp;
use kube::{Api, api::ListParams};
use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// The grace is longer by up to this part of it, the same for all pull secrets of a namespace: after a change of leaders
/// namespaces come one after the other, and one list of the Pods of a namespace does for all its pull secrets.
const SPREAD: f64 = 0.1;
/// What is due in less is not waited for exactly.
const SOON: Duration = Duration::from_secs(1);
/// Until the watch shows what another one has written.
const LAG: Duration = Duration::from_secs(30);
/// The most Pods of a page.
const PAGE: u32 = 100;

/// What is known of pull secrets whose end is announced.
#[derive(Default)]
pub struct Collection {
    /// When this leader has seen each mark, by its own clock.
    marks: Mutex<HashMap<Key, Instant>>,
    /// The last list of Pods. Locked while the next one is made: there is one at a time.
    list: tokio::sync::Mutex<Option<Listed>>,
}

/// The pull secrets that the Pods of a namespace name.
struct Listed {
    namespace: String,
    began: Instant,
    /// Of those that were marked.
    named: HashSet<String>,
    /// Of which this list tells.
    marked: HashSet<String>,
}

// === impl Collection ===

impl Collection {
    /// When the mark was first seen.
    fn seen(&self, key: &Key) -> Instant {
        *self.marks().entry(key.clone()).or_insert_with(Instant::now)
    }

    /// The pull secrets of this namespace that are marked.
    fn marked(&self, namespace: &str) -> HashSet<String> {
        let marks = self.marks();
        let here = marks.keys().filter(|key| key.0 == namespace);
        here.map(|key| key.1.clone()).collect()
    }

    /// The mark is gone, or the pull secret is.
    pub fn forget(&self, key: &Key) {
        self.marks().remove(key);
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// The next step towards the end of a pull secret that nobody has named for so long.
    pub(super) async fn collect(
        &self,
        owner: &ACRPullSecret,
        key: &Key,
        unused: Duration,
    ) -> Result<Option<Duration>, Problem> {
        let grace = self.upkeep.settings.unused_grace;
        let grace = grace + grace.mul_f64(SPREAD * chance(&key.0));
        if unused < grace {
            return Ok(Some((grace - unused).max(SOON).min(FAR)));
        }
        if let Some(wait) = self.trouble(key) {
            return Ok(Some(wait));
        }
        let writer = self.upkeep.issuer.writer();
        if !owner.is_marked_unused() {
            self.collection.forget(key);
            self.pace.turn().await;
            if self.term.still_leads() {
                writer.mark_unused(owner, Timestamp::now()).await?;
            }
            // The watch shows the mark.
            return Ok(Some(LAG));
        }
        let announced = self.collection.seen(key) + self.upkeep.settings.unused_notice;
        let left = announced.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(Some(left.max(SOON).min(FAR)));
        }
        if self.is_named(key, announced).await? {
            writer.mark_used(owner).await?;
            return Ok(Some(grace.min(FAR)));
        }
        self.pace.turn().await;
        if !self.term.still_leads() {
            return Ok(None);
        }
        // Bound to what was marked: whoever took the mark back meanwhile has changed it.
        if writer.delete_as_known(owner).await? {
            let (namespace, name) = key;
            tracing::info!(
                namespace,
                name,
                "pull secret collected: no Pod has named it for a while"
            );
            self.upkeep.metrics.count_collected();
        }
        Ok(Some(LAG))
    }

    /// Whether a Pod that is not finished names it, asked of the API server after this moment and of what the Pods really
    /// name.
    async fn is_named(&self, (namespace, name): &Key, after: Instant) -> Result<bool, Problem> {
        let mut list = self.collection.list.lock().await;
        let fresh =
            |list: &Listed| list.namespace == *namespace && list.began >= after && list.marked.contains(name);
        if let Some(list) = list.as_ref().filter(|list| fresh(list)) {
            return Ok(list.named.contains(name));
        }
        let listed = self.list(namespace).await?;
        let named = listed.named.contains(name);
        *list = Some(listed);
        Ok(named)
    }

    /// Which of the marked pull secrets of a namespace its Pods name. Page by page, as there may be more Pods than memory.
    async fn list(&self, namespace: &str) -> Result<Listed, Problem> {
        let what = format!("listing the Pods of namespace {namespace}");
        let api = Api::<Item<Pod>>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let mut listed = Listed {
            began: Instant::now(),
            named: HashSet::new(),
            marked: self.collection.marked(namespace),
            namespace: namespace.to_owned(),
        };
        let mut params = ListParams::default()
            .fields(super::watches::NOT_FINISHED)
            .limit(PAGE);
        while listed.named.len() < listed.marked.len() {
            let page = match watch::list_page(&self.upkeep.cluster.client, &api, &params).await {
                Ok(page) => page,
                Err(ReadError::TooLarge(_)) if params.limit > Some(1) => {
                    params.limit = params.limit.map(|limit| limit / 2);
                    continue;
                }
                Err(ReadError::Api(status)) => return Err(api_problem(&what, CallError::Api(status))),
                Err(failure) => return Err(api_problem(&what, CallError::Transport(failure.to_string()))),
            };
            for Item(pod) in page.items {
                let Ok(pod) = pod else {
                    // It may name each of them.
                    listed.named.clone_from(&listed.marked);
                    break;
                };
                let named = pod
                    .spec
                    .image_pull_secrets
                    .into_iter()
                    .flatten()
                    .map(|secret| secret.name);
                listed
                    .named
                    .extend(named.filter(|name| listed.marked.contains(name)));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        Ok(listed)
    }
}
