//! A reverse proxy between a webhook and the API server. It forwards all requests, and on demand it loses a write and
//! all requests after it, holds requests back, refuses requests, and lets watches expire.

use crate::{control_plane::ControlPlane, run::waiting_for, speed};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use http::{Method, StatusCode, header};
use kube::config::Kubeconfig;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

/// A proxy. It stops with this value.
pub struct ApiProxy {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    server: AbortHandle,
    _files: TempDir,
}

/// A kind of write of the webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Owner,
    Secret,
    Status,
    UnusedSince,
    Delete,
}

/// Whether the request or only the API server's response is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Request,
    Response,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    At(Write, Lost),
    /// All requests are lost.
    Done,
}

/// What can be held back: a kind of write, the requests of a method for a path, or the events of the watches of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    Write(Write),
    Path(Method, String),
    Watch(String),
}

struct Shared {
    client: reqwest::Client,
    server: String,
    cut: watch::Sender<Cut>,
    /// Watches that began before the last change are closed.
    generation: watch::Sender<u32>,
    /// Paths whose requests the proxy answers with a status, and how many of these requests.
    refusals: Mutex<Vec<(String, StatusCode, usize)>>,
    /// The writes that were forwarded.
    writes: Mutex<Vec<Write>>,
    /// What is held back.
    held: watch::Sender<Option<Held>>,
    /// How many requests are held back.
    waiting: watch::Sender<usize>,
    /// The kinds whose next watch requests a resource version that the API server has compacted.
    expiring: Mutex<BTreeSet<String>>,
}

impl ApiProxy {
    pub async fn start(cluster: &ControlPlane) -> Self {
        let original = &cluster.prepared().await.webhook_kubeconfig;
        let mut kubeconfig = Kubeconfig::read_from(original).unwrap();
        let place = kubeconfig.clusters[0].cluster.as_mut().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = format!("http://{}", listener.local_addr().unwrap());
        let server = place.server.replace(here).unwrap();
        let ca = place.certificate_authority_data.take().unwrap();
        let ca = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, ca).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).unwrap()])
            .build()
            .unwrap();
        let files = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
        let path = files.path().join("kubeconfig");
        std::fs::write(&path, serde_json::to_string(&kubeconfig).unwrap()).unwrap();
        let shared = Arc::new(Shared {
            client,
            server,
            cut: watch::Sender::new(Cut::None),
            generation: watch::Sender::new(0),
            refusals: Mutex::default(),
            writes: Mutex::default(),
            held: watch::Sender::new(None),
            waiting: watch::Sender::new(0),
            expiring: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(shared.clone());
        let server = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self {
            shared,
            kubeconfig: path,
            server: server.abort_handle(),
            _files: files,
        }
    }

    /// A kubeconfig of the webhook's account for this proxy.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Loses the next write of this kind, and all requests after it.
    pub fn cut_at(&self, write: Write, lost: Lost) {
        self.shared.cut.send_replace(Cut::At(write, lost));
    }

    /// Waits until the write was lost.
    pub async fn wait_until_cut(&self) {
        let what = format!("{:?}", *self.shared.cut.borrow());
        wait_for(&what, &self.shared.cut, |cut| *cut == Cut::Done).await;
    }

    /// Forwards all requests again.
    pub fn restore(&self) {
        self.shared.cut.send_replace(Cut::None);
        self.shared.refusals.lock().unwrap().clear();
    }

    /// Answers the next requests for this path with this status. Open watches are closed.
    pub fn refuse(&self, path: &str, status: StatusCode, times: usize) {
        let refusal = (path.to_owned(), status, times);
        self.shared.refusals.lock().unwrap().push(refusal);
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Waits until all announced refusals have been sent.
    pub async fn wait_until_refused(&self) {
        crate::eventually("the proxy has refused a request", async || {
            self.shared.refusals.lock().unwrap().is_empty().then_some(())
        })
        .await;
    }

    /// Holds these requests back, and only these, until they are released.
    pub fn hold(&self, held: Held) {
        self.shared.waiting.send_replace(0);
        self.shared.held.send_replace(Some(held));
    }

    /// Waits until a request or the event of a watch is held back.
    pub async fn wait_until_holding(&self) {
        let what = format!("{:?} is held back", *self.shared.held.borrow());
        wait_for(&what, &self.shared.waiting, |waiting| *waiting > 0).await;
    }

    /// Forwards the requests that were held back.
    pub fn release(&self) {
        self.shared.held.send_replace(None);
    }

    /// How many writes of this kind were forwarded.
    pub fn writes(&self, write: Write) -> usize {
        let writes = self.shared.writes.lock().unwrap();
        writes.iter().filter(|one| **one == write).count()
    }

    /// Closes open watches. The next watch of each of these kinds requests a compacted resource version.
    pub fn expire_watches(&self, kinds: &[&str]) {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned());
        self.shared.expiring.lock().unwrap().extend(kinds);
        self.shared.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Write {
    fn of(request: &Request) -> Option<Self> {
        let path: Vec<_> = request.uri().path().split('/').collect();
        let merges = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t == "application/merge-patch+json");
        match (request.method(), &path[..]) {
            (&Method::PATCH, [.., "acrpullsecrets", _]) => Some(Self::Owner),
            (&Method::PATCH, [.., "acrpullsecrets", _, "status"]) if merges => Some(Self::UnusedSince),
            (&Method::PATCH, [.., "acrpullsecrets", _, "status"]) => Some(Self::Status),
            (&Method::POST, [.., "secrets"]) | (&Method::PUT, [.., "secrets", _]) => Some(Self::Secret),
            (&Method::DELETE, [.., "acrpullsecrets", _]) => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Waits until a value of the proxy's state matches.
async fn wait_for<T>(what: &str, state: &watch::Sender<T>, matches: impl FnMut(&T) -> bool) {
    let _waiting = waiting_for(what);
    let mut state = state.subscribe();
    let matched = tokio::time::timeout(speed::seconds(90), state.wait_for(matches)).await;
    assert!(matched.is_ok(), "not in time: {what}");
}

/// Waits while a request is held back.
async fn wait_while_held(shared: &Shared, matches: impl Fn(&Held) -> bool) {
    let mut held = shared.held.subscribe();
    let is_held = held.borrow_and_update().as_ref().is_some_and(&matches);
    if is_held {
        shared.waiting.send_modify(|waiting| *waiting += 1);
        // The proxy, which owns the sender, lives longer.
        let _ = held.wait_for(|held| !held.as_ref().is_some_and(&matches)).await;
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if let Some(status) = refusal(&shared, request.uri().path()) {
        let body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": status.canonical_reason(), "message": "by the proxy", "code": status.as_u16(),
        });
        return (status, body.to_string()).into_response();
    }
    let write = Write::of(&request);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    wait_while_held(&shared, |held| match held {
        Held::Write(held) => Some(*held) == write,
        Held::Path(by, held) => (by, held) == (&method, &path),
        Held::Watch(_) => false,
    })
    .await;
    if let Some(write) = write {
        shared.writes.lock().unwrap().push(write);
    }
    let cut = match *shared.cut.borrow() {
        Cut::At(kind, lost) if write == Some(kind) => Some(lost),
        Cut::Done => Some(Lost::Request),
        _ => None,
    };
    if cut == Some(Lost::Request) {
        shared.cut.send_replace(Cut::Done);
        return never().await;
    }
    let response = forward(&shared, request).await;
    if cut == Some(Lost::Response) {
        shared.cut.send_replace(Cut::Done);
    }
    if *shared.cut.borrow() == Cut::Done {
        return never().await;
    }
    response
}

fn refusal(shared: &Shared, path: &str) -> Option<StatusCode> {
    let mut refusals = shared.refusals.lock().unwrap();
    let at = refusals.iter().position(|(refused, ..)| refused == path)?;
    let (_, status, times) = &mut refusals[at];
    let status = *status;
    *times -= 1;
    if *times == 0 {
        refusals.remove(at);
    }
    Some(status)
}

/// The test kills the process that waits for this response.
async fn never() -> Response {
    std::future::pending().await
}

async fn forward(shared: &Arc<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut uri = head.uri.to_string();
    let watches = head.uri.query().is_some_and(|query| query.contains("watch=true"));
    let kind = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    if watches && shared.expiring.lock().unwrap().remove(&kind) {
        uri = compacted(&uri);
    }
    let mut generation = shared.generation.subscribe();
    generation.mark_unchanged();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let mut headers = head.headers;
    headers.remove(header::HOST);
    headers.remove(header::CONNECTION);
    let answer = shared
        .client
        .request(head.method, format!("{}{uri}", shared.server))
        .headers(headers)
        .body(body)
        .send()
        .await;
    let Ok(answer) = answer else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut response = Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        if name != header::TRANSFER_ENCODING && name != header::CONTENT_LENGTH {
            response = response.header(name, value);
        }
    }
    let chunks = answer.bytes_stream();
    let holder = shared.clone();
    let body = match watches {
        true => {
            let chunks = chunks.then(move |chunk| {
                let (holder, kind) = (holder.clone(), kind.clone());
                async move {
                    wait_while_held(&holder, |held| *held == Held::Watch(kind.clone())).await;
                    chunk
                }
            });
            Body::from_stream(chunks.take_until(async move { generation.changed().await.is_ok() }))
        }
        false => Body::from_stream(chunks),
    };
    response.body(body).unwrap()
}

/// The same watch from the first resource version of the cluster.
fn compacted(uri: &str) -> String {
    let (path, query) = uri.split_once('?').unwrap();
    let fields = query
        .split('&')
        .map(|field| match field.starts_with("resourceVersion=") {
            true => "resourceVersion=1",
            false => field,
        });
    format!("{path}?{}", fields.collect::<Vec<_>>().join("&"))
}
