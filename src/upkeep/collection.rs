//! Deletes pull secrets that no live Pod names. A pull secret is first marked as unused, so that an admission whose Pod
//! needs it can remove the mark. After the notice the Pods are listed once more, and the pull secret is deleted only if
//! it has not changed since it was marked.
//!
//! The grace before the mark is measured by the current leader, from the moment at which it saw the last Pod disappear
//! or the pull secret for the first time; a new leader starts again. Storing its start in the status would cost one
//! write whenever a last Pod disappears, and another write during the admission of the next Pod.

use super::{MAX_REQUEUE, Reconciler, schedule::fraction};
use crate::{
    kubernetes::{CallError, api_problem},
    live_pod::LivePod,
    names::{NamespaceName, NamespacedName, ObjectName},
    problem::Problem,
    pull_secret::ACRPullSecret,
    watch::{self, Item},
};
use jiff::Timestamp;
use kube::{Api, api::ListParams};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Extends the grace by up to this fraction, equally for all pull secrets of a namespace. After a change of the leader
/// the namespaces become due at different times, and one list of a namespace's Pods serves all its pull secrets.
const GRACE_SPREAD: f64 = 0.1;
/// The shortest time until a pull secret is reconciled again.
const MIN_REQUEUE: Duration = Duration::from_secs(1);
/// How long to wait for the watch to report the leader's own write.
const WATCH_LAG: Duration = Duration::from_secs(30);
/// The most Pods per list page.
const PAGE_SIZE: u32 = 100;

/// The pull secrets that are marked as unused.
#[derive(Default)]
pub struct Collection {
    /// When this leader first saw each mark, by its own clock.
    marks: Mutex<HashMap<NamespacedName, Instant>>,
    /// The unused pull secrets that a Pod named in the last list, until a renewal of them is tried.
    kept: Mutex<HashSet<NamespacedName>>,
    /// The last list of Pods. Locked during a list, so that there is only one at a time.
    last_list: tokio::sync::Mutex<Option<NamedByPods>>,
}

impl Collection {
    /// When the mark of this pull secret was first seen.
    fn mark_seen_at(&self, key: &NamespacedName) -> Instant {
        *self.marks.lock().entry(key.clone()).or_insert_with(Instant::now)
    }

    /// The names of the marked pull secrets of this namespace.
    fn marked_in(&self, namespace: &NamespaceName) -> HashSet<ObjectName> {
        let marks = self.marks.lock();
        let marked = marks.keys().filter(|key| key.namespace == *namespace);
        marked.map(|key| key.name.clone()).collect()
    }

    /// Whether a Pod named this unused pull secret in the last list. A list also finds Pods without the label of the
    /// webhook, such as copies by `kubectl debug`.
    pub fn is_kept(&self, key: &NamespacedName) -> bool {
        self.kept.lock().contains(key)
    }

    /// Lets the next list of Pods decide again whether the pull secret is kept. So a renewal that fails again and again
    /// does not prevent the deletion.
    pub fn stop_keeping(&self, key: &NamespacedName) {
        self.kept.lock().remove(key);
    }

    /// Forgets a pull secret that is used again, or no longer exists.
    pub fn forget(&self, key: &NamespacedName) {
        self.marks.lock().remove(key);
        self.kept.lock().remove(key);
    }
}

/// The marked pull secrets of a namespace that its Pods name.
struct NamedByPods {
    namespace: NamespaceName,
    /// When the list was started.
    started: Instant,
    /// The pull secrets that were marked at that time. The list covers only these.
    marked: HashSet<ObjectName>,
    /// Those of `marked` that a Pod names.
    named: HashSet<ObjectName>,
}

impl Reconciler {
    /// Takes the next step towards the deletion of a pull secret that has been unused for this duration.
    pub(super) async fn collect(
        &self,
        owner: &ACRPullSecret,
        key: &NamespacedName,
        unused: Duration,
    ) -> Result<Option<Duration>, Problem> {
        let grace = self.upkeep.settings.unused_grace;
        let grace = grace + grace.mul_f64(GRACE_SPREAD * fraction(&key.namespace));
        if unused < grace {
            return Ok(Some((grace - unused).max(MIN_REQUEUE).min(MAX_REQUEUE)));
        }
        if let Some(left) = self.backoff_left(key) {
            return Ok(Some(left));
        }
        let writer = self.upkeep.issuer.writer();
        if !owner.is_marked_unused() {
            self.collection.marks.lock().remove(key);
            self.write_limiter.acquire().await;
            if self.leadership.still_leads() {
                writer.mark_unused(key, owner, Timestamp::now()).await?;
            }
            // A fallback: the watch reports the mark and wakes the key.
            return Ok(Some(WATCH_LAG));
        }
        let notice_end = self.collection.mark_seen_at(key) + self.upkeep.settings.unused_notice;
        let left = notice_end.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            return Ok(Some(left.max(MIN_REQUEUE).min(MAX_REQUEUE)));
        }
        if self.is_named_by_a_pod(key, notice_end).await? {
            self.collection.kept.lock().insert(key.clone());
            writer.mark_used(key, owner).await?;
            return Ok(Some(grace.min(MAX_REQUEUE)));
        }
        self.collection.stop_keeping(key);
        self.write_limiter.acquire().await;
        if !self.leadership.still_leads() {
            return Ok(None);
        }
        // Deletes only the version that was read here: an admission that removed the mark has changed the version.
        if writer.delete_as_known(key, owner).await? {
            let NamespacedName { namespace, name } = key;
            tracing::info!(
                namespace = namespace.as_str(),
                name = name.as_str(),
                "unused pull secret deleted: no Pod has named it for a while"
            );
            self.upkeep.metrics.count_collected();
        }
        Ok(Some(WATCH_LAG))
    }

    /// Whether an unfinished Pod names the pull secret in its spec, according to a list that was started after `after`.
    async fn is_named_by_a_pod(
        &self,
        NamespacedName { namespace, name }: &NamespacedName,
        after: Instant,
    ) -> Result<bool, Problem> {
        let mut last_list = self.collection.last_list.lock().await;
        let covers = |list: &NamedByPods| {
            list.namespace == *namespace && list.started >= after && list.marked.contains(name)
        };
        if let Some(list) = last_list.as_ref().filter(|list| covers(list)) {
            return Ok(list.named.contains(name));
        }
        let list = self.list_named(namespace).await?;
        let named = list.named.contains(name);
        *last_list = Some(list);
        Ok(named)
    }

    /// Lists the Pods of a namespace for its marked pull secrets, page by page, as all Pods may not fit into memory.
    async fn list_named(&self, namespace: &NamespaceName) -> Result<NamedByPods, Problem> {
        let what = format!("listing the Pods of namespace {namespace}");
        let api = Api::<Item<LivePod>>::namespaced(self.upkeep.cluster.client.clone(), namespace);
        let mut list = NamedByPods {
            started: Instant::now(),
            named: HashSet::new(),
            marked: self.collection.marked_in(namespace),
            namespace: namespace.clone(),
        };
        let mut params = ListParams::default()
            .fields(super::watches::NOT_FINISHED)
            .limit(PAGE_SIZE);
        while list.named.len() < list.marked.len() {
            let page = match watch::list_page(&self.upkeep.cluster.client, &api, &params).await {
                Ok(page) => page,
                Err(CallError::TooLarge(_)) if params.limit > Some(1) => {
                    params.limit = params.limit.map(|limit| limit / 2);
                    continue;
                }
                Err(error) => return Err(api_problem(&what, error)),
            };
            for Item(pod) in page.items {
                let Ok(pod) = pod else {
                    // An undecodable Pod may name any of them.
                    list.named.clone_from(&list.marked);
                    break;
                };
                let named = pod
                    .spec
                    .image_pull_secrets
                    .into_iter()
                    .flatten()
                    .filter_map(|secret| list.marked.get(secret.name.as_str()).cloned());
                list.named.extend(named);
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        Ok(list)
    }
}
