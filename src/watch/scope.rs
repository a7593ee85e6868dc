//! The list and watch of one scope: a list in pages, then consecutive watches that start at the version of that list.

use super::{
    Change, Selector,
    failure::{Failure, MIN_WATCH_DURATION},
    list,
};
use crate::{cluster::Cluster, kubernetes::CallError, names::NamespaceName, telemetry::ScopeHealth};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource,
    api::{ListParams, WatchParams},
    core::WatchEvent,
    runtime::reflector::ObjectRef,
};
use serde::de::DeserializeOwned;
use std::{
    collections::{HashSet, VecDeque},
    fmt::Debug,
    mem,
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// The API server ends each watch after this time. A dead connection is noticed when its watch does not end.
const WATCH_SECONDS: u32 = 15;
/// How long after [`WATCH_SECONDS`] a watch that has not ended is abandoned.
const WATCH_MARGIN: Duration = Duration::from_secs(5);
/// So many consecutive interruptions are normal, for example while an API server restarts.
const MAX_INTERRUPTIONS: u32 = 2;
/// The API server answers the start of a watch immediately.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_BACKOFF: Duration = Duration::from_millis(500);
/// Short, because Pods are admitted with outdated objects until the watch recovers.
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The back-off starts at its minimum again after this time without a failure.
const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(60);
/// After this number of consecutive failures the scope is listed again: the API server may have lost the version.
const MAX_RESUMES: u32 = 3;
/// A scope that the API server refuses to list counts as empty after this time. Permissions that are granted when the
/// program is started reach the API server's authorizer within it.
const REFUSED_LIST_GRACE: Duration = Duration::from_secs(10);

/// The list and watch of one scope.
pub struct ScopeWatch<K: Resource> {
    name: &'static str,
    namespace: Option<NamespaceName>,
    api: Api<K>,
    cluster: Cluster,
    health: ScopeHealth,
    selector: Selector,
    state: State<K>,
    /// Changes that have not been returned yet.
    pending: VecDeque<Change<K>>,
    backoff: ExponentialBackoff,
    last_failure: Option<Instant>,
    /// The next call is made at this time.
    retry_at: Option<Instant>,
    consecutive_failures: u32,
    failing: bool,
    /// Whether the scope has been listed, or counts as empty.
    listed: bool,
    started: Instant,
}

enum State<K: Resource> {
    Listing {
        continue_token: Option<String>,
        limit: u32,
        listed: HashSet<ObjectRef<K>>,
    },
    Watching {
        version: String,
        running: Option<Running<K>>,
    },
}

/// A watch that the API server has started.
struct Running<K> {
    events: BoxStream<'static, kube::Result<WatchEvent<K>>>,
    /// Whether it has lasted for [`MIN_WATCH_DURATION`] or has delivered an event.
    proven: bool,
}

impl<K: Resource> State<K>
where
    K::DynamicType: std::hash::Hash + Eq,
{
    fn start() -> Self {
        Self::Listing {
            continue_token: None,
            limit: list::MAX_PAGE_ITEMS,
            listed: HashSet::new(),
        }
    }
}

impl<K> ScopeWatch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    pub fn new(
        name: &'static str,
        namespace: Option<NamespaceName>,
        api: Api<K>,
        cluster: &Cluster,
        health: ScopeHealth,
        selector: Selector,
    ) -> Self {
        Self {
            health,
            name,
            namespace,
            api,
            cluster: cluster.clone(),
            selector,
            state: State::start(),
            pending: VecDeque::new(),
            backoff: new_backoff(),
            last_failure: None,
            retry_at: None,
            consecutive_failures: 0,
            failing: false,
            listed: false,
            started: Instant::now(),
        }
    }

    /// The changes of this scope, each with the scope's index.
    pub fn changes(self, index: usize) -> BoxStream<'static, (usize, Change<K>)> {
        let changes = stream::unfold(self, move |mut scope| async move {
            let change = scope.next().await;
            Some(((index, change), scope))
        });
        changes.boxed()
    }

    async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return change;
            }
            if let Some(retry_at) = self.retry_at.take() {
                sleep_until(retry_at).await;
            }
            match &mut self.state {
                State::Listing { .. } => self.read_page().await,
                State::Watching { running: None, .. } => self.start_watch().await,
                State::Watching { .. } => self.read_event().await,
            }
        }
    }

    async fn read_page(&mut self) {
        let State::Listing {
            continue_token,
            limit,
            listed,
        } = &mut self.state
        else {
            return;
        };
        let params = ListParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            limit: Some(*limit),
            continue_token: continue_token.clone(),
            ..ListParams::default()
        };
        let page = match list::list_page(&self.cluster.client, &self.api, &params).await {
            Ok(page) => page,
            Err(CallError::TooLarge(_)) if *limit > 1 => {
                *limit = (*limit / 8).max(1);
                return;
            }
            Err(error) => return self.on_failure(&Failure::Call(error)),
        };
        for object in page.items {
            listed.insert(ObjectRef::from_obj(&object));
            self.pending.push_back(Change::Applied(object));
        }
        *continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if continue_token.is_some() {
            return;
        }
        let all = mem::take(listed);
        self.state = State::Watching {
            version: page.metadata.resource_version.unwrap_or_default(),
            running: None,
        };
        self.pending
            .push_back(Change::Relisted(self.namespace.clone(), all));
        self.listed = true;
    }

    async fn start_watch(&mut self) {
        let State::Watching { version, running } = &mut self.state else {
            return;
        };
        let params = WatchParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: false,
        };
        let error = match timeout(START_TIMEOUT, self.api.watch(&params, version)).await {
            Ok(Ok(stream)) => {
                *running = Some(Running {
                    events: stream.boxed(),
                    proven: false,
                });
                return;
            }
            Ok(Err(error)) => error.into(),
            Err(_) => CallError::Transport(format!("no response within {START_TIMEOUT:?}")),
        };
        self.on_failure(&Failure::Call(error));
    }

    async fn read_event(&mut self) {
        let State::Watching {
            version,
            running: Some(running),
        } = &mut self.state
        else {
            return;
        };
        let limit = if running.proven {
            Duration::from_secs(WATCH_SECONDS.into()) + WATCH_MARGIN
        } else {
            MIN_WATCH_DURATION
        };
        match timeout(limit, running.events.next()).await {
            Err(_) if !running.proven => self.on_proof(),
            Ok(None) if !running.proven => self.on_failure(&Failure::EndedEarly),
            // The regular end, or a dead connection.
            Ok(None) | Err(_) => self.stop_watch(),
            Ok(Some(Ok(event))) => match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    advance(version, &object);
                    self.pending.push_back(Change::Applied(object));
                    self.on_proof();
                }
                WatchEvent::Deleted(object) => {
                    advance(version, &object);
                    self.pending
                        .push_back(Change::Deleted(ObjectRef::from_obj(&object)));
                    self.on_proof();
                }
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    self.on_proof();
                }
                WatchEvent::Error(status) => self.on_failure(&Failure::Call(CallError::Api(status))),
            },
            Ok(Some(Err(error))) => self.on_failure(&Failure::Call(error.into())),
        }
    }

    fn stop_watch(&mut self) {
        if let State::Watching { running, .. } = &mut self.state {
            *running = None;
        }
    }

    /// The running watch works.
    fn on_proof(&mut self) {
        let State::Watching {
            running: Some(running),
            ..
        } = &mut self.state
        else {
            return;
        };
        if mem::replace(&mut running.proven, true) {
            return;
        }
        self.consecutive_failures = 0;
        self.health.set_working();
        if mem::take(&mut self.failing) {
            tracing::info!(
                namespace = self.namespace.as_deref(),
                "the {} has recovered",
                self.name
            );
            self.pending.push_back(Change::Recovered(self.namespace.clone()));
        }
    }

    fn on_failure(&mut self, failure: &Failure) {
        self.schedule_retry();
        self.stop_watch();
        let code = failure.code();
        // With code 410, the API server no longer has the version from which to watch.
        if code == 410
            || self.consecutive_failures >= MAX_RESUMES
            || matches!(self.state, State::Listing { .. })
        {
            self.state = State::start();
        }
        if failure.is_interruption() && !self.failing && self.consecutive_failures <= MAX_INTERRUPTIONS {
            let namespace = self.namespace.as_deref();
            let outcome = if code == 410 {
                "has expired and lists again"
            } else {
                "was interrupted and starts again"
            };
            tracing::debug!(namespace, why = %failure, "the {} {outcome}", self.name);
            return;
        }
        // The kind or the permission does not exist. If the kind has been deleted, so have its objects.
        let is_missing = code == 404 || code == 403 && !self.listed;
        if is_missing && (self.listed || self.started.elapsed() >= REFUSED_LIST_GRACE) {
            self.listed = true;
            self.pending
                .push_back(Change::Relisted(self.namespace.clone(), HashSet::new()));
        }
        self.report_failure(failure);
    }

    fn schedule_retry(&mut self) {
        let now = Instant::now();
        if self
            .last_failure
            .is_none_or(|last| now - last > BACKOFF_RESET_AFTER)
        {
            self.backoff = new_backoff();
        }
        self.last_failure = Some(now);
        self.retry_at = Some(now + self.backoff.next().unwrap_or(MAX_BACKOFF));
        self.consecutive_failures += 1;
    }

    fn report_failure(&mut self, failure: &Failure) {
        self.health.set_failing(failure.outage());
        let name = self.name;
        let namespace = self.namespace.as_deref();
        let is_kind_missing = failure.is_kind_missing();
        let was_kind_missing = self.health.set_kind_missing(is_kind_missing);
        let why = failure.describe::<K>();
        let was_failing = mem::replace(&mut self.failing, true);
        match is_kind_missing {
            // Only a person can install the kind, so this is reported even if the watch has failed for another reason.
            true if !was_kind_missing => {
                tracing::error!(namespace, why, "the {name} fails; retrying with back-off");
            }
            false if !was_failing => {
                tracing::warn!(namespace, why, "the {name} fails; retrying with back-off");
            }
            _ => {
                tracing::debug!(namespace, why, "the {name} still fails");
                return;
            }
        }
        self.cluster
            .report_failing_watch(name, self.namespace.as_ref(), &why);
        if !was_failing {
            self.pending.push_back(Change::Stale(self.namespace.clone()));
        }
    }
}

/// Sets the version from which to watch to that of this object.
fn advance(version: &mut String, object: &impl Resource) {
    if let Some(next) = object
        .meta()
        .resource_version
        .as_ref()
        .filter(|next| !next.is_empty())
    {
        version.clone_from(next);
    }
}

fn new_backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_BACKOFF)
        .with_max_delay(MAX_BACKOFF)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests;
