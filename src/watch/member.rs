//! The list and watch of one place: a list in pages, then watches from the version of that list on, for as long as the
//! stream is polled.

use super::{Change, Selector, list};
use crate::{
    cluster::Cluster,
    telemetry::{Outage, WatchHealth},
    untrusted::UntrustedText,
};
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
use list::Failure;
use serde::de::DeserializeOwned;
use std::{
    collections::{HashSet, VecDeque},
    fmt::Debug,
    mem,
    time::Duration,
};
use tokio::time::{Instant, sleep_until, timeout};

/// The API server ends a watch after this, and the next one begins: a connection that is dead is noticed that soon.
const WATCH_SECONDS: u32 = 15;
/// How much longer than [`WATCH_SECONDS`] the end of a watch is waited for.
const WATCH_MARGIN: Duration = Duration::from_secs(5);
/// The API server answers to the beginning of a watch at once.
const START_TIMEOUT: Duration = Duration::from_secs(10);
const MIN_WAIT: Duration = Duration::from_millis(500);
/// Short: until the watch works again, Pods are admitted by what was known before.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// The first failure after so long is met as if it were the first of all.
const FORGIVEN: Duration = Duration::from_secs(60);
/// So many failures in a row, and the watch begins with a list again: the API server may have lost the version.
const MAX_RESUMES: u32 = 3;
/// A place whose list the API server refuses for so long after the start is taken for empty. Rights that are granted at
/// the same time as the program is started reach the API server's authorizer within this.
const SETTLED: Duration = Duration::from_secs(10);

/// The list and watch of one place.
pub struct Member<K: Resource> {
    what: &'static str,
    namespace: Option<String>,
    api: Api<K>,
    cluster: Cluster,
    health: WatchHealth,
    selector: Selector,
    state: State<K>,
    /// Changes that are still to be returned.
    pending: VecDeque<Change<K>>,
    waits: ExponentialBackoff,
    failed: Option<Instant>,
    /// Nothing is tried before this.
    again: Option<Instant>,
    failures: u32,
    failing: bool,
    /// Whether the place has been listed, or taken for empty.
    known: bool,
    started: Instant,
}

enum State<K: Resource> {
    Listing {
        continue_token: Option<String>,
        limit: u32,
        seen: HashSet<ObjectRef<K>>,
    },
    Watching {
        version: String,
        events: Option<BoxStream<'static, kube::Result<WatchEvent<K>>>>,
    },
}

// === impl State ===

impl<K: Resource> State<K>
where
    K::DynamicType: std::hash::Hash + Eq,
{
    fn start() -> Self {
        Self::Listing {
            continue_token: None,
            limit: list::MAX_ITEMS,
            seen: HashSet::new(),
        }
    }
}

// === impl Member ===

impl<K> Member<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    pub fn new(
        what: &'static str,
        namespace: Option<String>,
        api: Api<K>,
        cluster: &Cluster,
        selector: Selector,
    ) -> Self {
        Self {
            health: cluster.readiness.watch(what, &cluster.metrics),
            what,
            namespace,
            api,
            cluster: cluster.clone(),
            selector,
            state: State::start(),
            pending: VecDeque::new(),
            waits: waits(),
            failed: None,
            again: None,
            failures: 0,
            failing: false,
            known: false,
            started: Instant::now(),
        }
    }

    pub fn changes(self, n: usize) -> BoxStream<'static, (usize, Change<K>)> {
        let changes = stream::unfold(self, move |mut member| async move {
            let change = member.next().await;
            Some(((n, change), member))
        });
        changes.boxed()
    }

    async fn next(&mut self) -> Change<K> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return change;
            }
            if let Some(again) = self.again.take() {
                sleep_until(again).await;
            }
            match &mut self.state {
                State::Listing { .. } => self.list().await,
                State::Watching { events: None, .. } => self.watch().await,
                State::Watching { .. } => self.follow().await,
            }
        }
    }

    /// Takes in the next page.
    async fn list(&mut self) {
        let State::Listing {
            continue_token,
            limit,
            seen,
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
        let page = match list::page(&self.cluster.client, &self.api, &params).await {
            Ok(page) => page,
            Err(Failure::TooLarge(_)) if *limit > 1 => {
                *limit = (*limit / 8).max(1);
                return;
            }
            Err(failure) => return self.fails(&failure),
        };
        for object in page.items {
            seen.insert(ObjectRef::from_obj(&object));
            self.pending.push_back(Change::There(object));
        }
        *continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
        if continue_token.is_some() {
            return;
        }
        let all = mem::take(seen);
        self.state = State::Watching {
            version: page.metadata.resource_version.unwrap_or_default(),
            events: None,
        };
        self.pending
            .push_back(Change::Listed(self.namespace.clone(), all));
        self.known = true;
        self.works();
    }

    /// Begins the next watch.
    async fn watch(&mut self) {
        let State::Watching { version, events } = &mut self.state else {
            return;
        };
        let params = WatchParams {
            label_selector: self.selector.labels.clone(),
            field_selector: self.selector.fields.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            send_initial_events: false,
        };
        let failure = match timeout(START_TIMEOUT, self.api.watch(&params, version)).await {
            Ok(Ok(stream)) => {
                *events = Some(stream.boxed());
                return self.works();
            }
            Ok(Err(error)) => error.into(),
            Err(_) => Failure::Transport(format!("no answer within {START_TIMEOUT:?}")),
        };
        self.fails(&failure);
    }

    /// Takes in the next event.
    async fn follow(&mut self) {
        let State::Watching { version, events } = &mut self.state else {
            return;
        };
        let Some(stream) = events else { return };
        let limit = Duration::from_secs(WATCH_SECONDS.into()) + WATCH_MARGIN;
        let Ok(Some(event)) = timeout(limit, stream.next()).await else {
            *events = None;
            return;
        };
        match event {
            Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                advance(version, &object);
                self.pending.push_back(Change::There(object));
            }
            Ok(WatchEvent::Deleted(object)) => {
                advance(version, &object);
                self.pending.push_back(Change::Gone(ObjectRef::from_obj(&object)));
            }
            Ok(WatchEvent::Bookmark(bookmark)) => *version = bookmark.metadata.resource_version,
            Ok(WatchEvent::Error(status)) => self.fails(&Failure::Api(status)),
            Err(error) => self.fails(&error.into()),
        }
    }

    fn fails(&mut self, failure: &Failure) {
        let now = Instant::now();
        if self.failed.is_none_or(|before| now - before > FORGIVEN) {
            self.waits = waits();
        }
        self.failed = Some(now);
        self.again = Some(now + self.waits.next().unwrap_or(MAX_WAIT));
        self.failures += 1;
        let code = match failure {
            Failure::Api(status) => status.code,
            Failure::TooLarge(_) | Failure::Transport(_) => 0,
        };
        if let State::Watching { events, .. } = &mut self.state {
            *events = None;
        }
        // An API server remembers only so many versions.
        if code == 410 || self.failures >= MAX_RESUMES || matches!(self.state, State::Listing { .. }) {
            self.state = State::start();
        }
        let (what, namespace) = (self.what, &self.namespace);
        if code == 410 {
            tracing::debug!(namespace, "the {what} has expired and begins anew");
            return;
        }
        // The kind is gone, or the right to it. What was there of a kind that is gone is gone too.
        let gone = code == 404 || code == 403 && !self.known;
        if gone && (self.known || self.started.elapsed() >= SETTLED) {
            self.known = true;
            self.pending
                .push_back(Change::Listed(namespace.clone(), HashSet::new()));
        }
        self.health.fails(match code {
            400..500 if code != 408 && code != 429 => Outage::Refused,
            _ => Outage::Unreachable,
        });
        let why = UntrustedText::new(&failure.to_string()).to_string();
        if mem::replace(&mut self.failing, true) {
            tracing::debug!(namespace, why, "the {what} still fails");
            return;
        }
        tracing::warn!(namespace, why, "the {what} fails; trying again with back-off");
        self.cluster
            .report_failing_watch(what, namespace.as_deref(), &why);
        self.pending.push_back(Change::Fails(namespace.clone()));
    }

    fn works(&mut self) {
        self.failures = 0;
        self.health.works();
        if mem::take(&mut self.failing) {
            tracing::info!(namespace = self.namespace, "the {} works again", self.what);
            self.pending.push_back(Change::Works(self.namespace.clone()));
        }
    }
}

/// The version from which a watch goes on after this object.
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

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(MIN_WAIT)
        .with_max_delay(MAX_WAIT)
        .with_jitter()
        .without_max_times()
        .build()
}
