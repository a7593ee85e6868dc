use super::*;
use crate::{
    cluster::{NamespaceScope, cluster_wide},
    events::Events,
    tasks::tasks,
    telemetry::{Metrics, Readiness},
    watch::Watch,
};
use axum::{
    Router,
    extract::{RawQuery, State as Shared},
    response::{IntoResponse, Response},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, core::PartialObjectMeta};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::sleep;

type Item = super::super::Item<PartialObjectMeta<Pod>>;

/// The lines of the watches that an API server answers with an empty list and then ends.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    lines: Vec<Value>,
    /// Whether a watch stays open after its lines.
    stays_open: bool,
    watches: u32,
}

async fn answer(Shared(server): Shared<Server>, RawQuery(query): RawQuery) -> Response {
    if !query.unwrap_or_default().contains("watch=true") {
        let list = json!({"metadata": {"resourceVersion": "7"}, "items": []});
        return list.to_string().into_response();
    }
    // The clock of the test advances only while every task waits.
    sleep(Duration::from_millis(10)).await;
    let mut inner = server.0.lock();
    inner.watches += 1;
    let lines: Vec<_> = inner
        .lines
        .iter()
        .map(|line| Ok::<_, String>(format!("{line}\n")))
        .collect();
    let lines = stream::iter(lines);
    if inner.stays_open {
        axum::body::Body::from_stream(lines.chain(stream::pending())).into_response()
    } else {
        axum::body::Body::from_stream(lines).into_response()
    }
}

/// A watch of this server, and its readiness.
fn watch(server: &Server) -> (Watch<Item>, Cluster) {
    let client = Client::new(
        Router::new().fallback(answer).with_state(server.clone()),
        "default",
    );
    let cluster = Cluster {
        events: Events::new(client.clone()),
        namespaces: NamespaceScope::default(),
        readiness: Readiness::default(),
        metrics: Metrics::new(),
        tasks: tasks().0,
        client,
    };
    let scopes = cluster_wide(Api::all(cluster.client.clone()));
    (
        Watch::start("watch of Pods", &cluster, scopes, Selector::default()),
        cluster,
    )
}

/// Follows the watch for this time. Returns how often it became stale and how often it recovered.
async fn follow(watch: &mut Watch<Item>, duration: Duration) -> (u32, u32) {
    let (mut stale, mut recovered) = (0, 0);
    let end = sleep(duration);
    tokio::pin!(end);
    loop {
        tokio::select! {
            change = watch.next() => match change {
                Some(Change::Stale(_)) => stale += 1,
                Some(Change::Recovered(_)) => recovered += 1,
                _ => {}
            },
            () = &mut end => return (stale, recovered),
        }
    }
}

fn expired() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}})
}

fn throttled() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": "storage is (re)initializing"}})
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_always_ends_at_once_fails_and_is_started_with_back_off() {
    for lines in [vec![], vec![expired()], vec![throttled()]] {
        let server = Server::default();
        server.0.lock().lines = lines.clone();
        let (mut watch, cluster) = watch(&server);
        assert_eq!(
            follow(&mut watch, Duration::from_secs(60)).await,
            (1, 0),
            "{lines:?}"
        );
        let watches = server.0.lock().watches;
        assert!(
            (10..40).contains(&watches),
            "{watches} watches in a minute: {lines:?}"
        );
        if lines.is_empty() {
            assert_eq!(cluster.readiness.unready_reasons(), ["API server unreachable"]);
        }
        server.0.lock().lines.clear();
        server.0.lock().stays_open = true;
        assert_eq!(
            follow(&mut watch, Duration::from_secs(30)).await,
            (0, 1),
            "{lines:?}"
        );
        assert!(cluster.readiness.unready_reasons().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_interruption_of_a_watch_is_not_a_failure() {
    for lines in [vec![], vec![expired()], vec![throttled()]] {
        let server = Server::default();
        server.0.lock().lines = lines;
        let (mut watch, _cluster) = watch(&server);
        assert_eq!(follow(&mut watch, Duration::from_millis(100)).await, (0, 0));
        server.0.lock().lines.clear();
        server.0.lock().stays_open = true;
        assert_eq!(follow(&mut watch, Duration::from_secs(60)).await, (0, 0));
        let watches = server.0.lock().watches;
        assert!((2..10).contains(&watches), "{watches} watches in a minute");
    }
}

/// A status with this code as the only line of a watch.
fn failure(code: u16) -> Vec<Value> {
    vec![json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": code}})]
}

/// The log of this thread, on which the runtime of a test runs all tasks.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().clone())
            .unwrap()
            .matches(text)
            .count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_kind_is_reported_even_if_the_watch_failed_before_for_another_reason() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let server = Server::default();
    server.0.lock().lines = failure(500);
    let (mut watch, _cluster) = watch(&server);
    assert_eq!(follow(&mut watch, Duration::from_secs(20)).await, (1, 0));
    assert_eq!((log.count(" WARN "), log.count(" ERROR ")), (1, 0));
    server.0.lock().lines = failure(404);
    assert_eq!(follow(&mut watch, Duration::from_secs(60)).await, (0, 0));
    assert_eq!((log.count(" WARN "), log.count(" ERROR ")), (1, 1));
    assert_eq!(log.count("is not installed"), 1);
}
