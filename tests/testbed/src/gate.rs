//! The webhook's way to the API server, watched over: a reverse proxy that passes everything on, cuts the connection at
//! a chosen write, and makes watches expire.

use crate::control_plane::ControlPlane;
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
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

/// Ends with this value.
pub struct Gate {
    shared: Arc<Shared>,
    kubeconfig: PathBuf,
    server: AbortHandle,
    _files: TempDir,
}

/// A kind of write of the webhook's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Owner,
    Secret,
    Status,
    Mark,
    Delete,
}

/// Which of the two the API server's answer, or already its request, is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    Request,
    Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    At(Write, Lost),
    /// Nothing more gets through.
    Done,
}

/// What can be held back: a kind of write, the requests of a method for a path, or what the watches of a kind tell.
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
    /// Watches begun before the last change are cut off.
    generation: watch::Sender<u32>,
    /// Paths whose requests are answered with a status in place of the API server's answer, and how many of them.
    refusals: Mutex<Vec<(String, StatusCode, usize)>>,
    /// The writes that have come through.
    writes: Mutex<Vec<Write>>,
    /// What is held back, if anything is.
    held: watch::Sender<Option<Held>>,
    /// Requests that have been held back, since something is.
    waiting: watch::Sender<usize>,
    /// The kinds whose next watch asks for a state that the API server has forgotten.
    expiring: Mutex<BTreeSet<String>>,
}

// === impl Gate ===

impl Gate {
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

    /// A kubeconfig of the webhook's that leads through here.
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// From now on nothing gets through any more from the next such write on.
    pub fn cut_at(&self, write: Write, lost: Lost) {
        self.shared.cut.send_replace(Cut::At(write, lost));
    }

    /// Waits until that has happened.
    pub async fn is_cut(&self) {
        let mut cut = self.shared.cut.subscribe();
        let done = cut.wait_for(|cut| *cut == Cut::Done);
        let done = tokio::time::timeout(std::time::Duration::from_secs(90), done).await;
        assert!(
            done.is_ok(),
            "no such write within 90 s: {:?}",
            *self.shared.cut.borrow()
        );
    }

    /// Everything gets through again.
    pub fn mend(&self) {
        self.shared.cut.send_replace(Cut::None);
        self.shared.refusals.lock().unwrap().clear();
    }

    /// So many of the next requests for this path are answered with this status. Watches under way end.
    pub fn refuse(&self, path: &str, status: StatusCode, times: usize) {
        let refusal = (path.to_owned(), status, times);
        self.shared.refusals.lock().unwrap().push(refusal);
        self.shared.generation.send_modify(|generation| *generation += 1);
    }

    /// Whether no request is refused any more.
    pub fn has_refused(&self) -> bool {
        self.shared.refusals.lock().unwrap().is_empty()
    }

    /// Holds this back, in place of anything before, until it is let go.
    pub fn hold(&self, held: Held) {
        self.shared.waiting.send_replace(0);
        self.shared.held.send_replace(Some(held));
    }

    /// Waits until a request, or what a watch tells, is held back.
    pub async fn is_holding(&self) {
        let mut waiting = self.shared.waiting.subscribe();
        let holding = waiting.wait_for(|waiting| *waiting > 0);
        let holding = tokio::time::timeout(std::time::Duration::from_secs(90), holding).await;
        assert!(
            holding.is_ok(),
            "nothing is held back within 90 s: {:?}",
            *self.shared.held.borrow()
        );
    }

    /// Lets go what was held back.
    pub fn let_go(&self) {
        self.shared.held.send_replace(None);
    }

    /// How many of these writes have come through.
    pub fn writes(&self, write: Write) -> usize {
        let writes = self.shared.writes.lock().unwrap();
        writes.iter().filter(|one| **one == write).count()
    }

    /// Ends the watches under way; the next one of each of these kinds goes on from where nobody remembers.
    pub fn expire(&self, kinds: &[&str]) {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned());
        self.shared.expiring.lock().unwrap().extend(kinds);
        self.shared.generation.send_modify(|generation| *generation += 1);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

// === impl Write ===

impl Write {
    fn of(request: &Request) -> Option<Self> {
        let path: Vec<_> = request.uri().path().split('/').collect();
        let merges = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t == "application/merge-patch+json");
        match (request.method(), &path[..]) {
            (&Method::PATCH, [.., "acrpullsecrets", _]) => Some(Self::Owner),
            (&Method::PATCH, [.., "acrpullsecrets", _, "status"]) if merges => Some(Self::Mark),
            (&Method::PATCH, [.., "acrpullsecrets", _, "status"]) => Some(Self::Status),
            (&Method::POST, [.., "secrets"]) | (&Method::PUT, [.., "secrets", _]) => Some(Self::Secret),
            (&Method::DELETE, [.., "acrpullsecrets", _]) => Some(Self::Delete),
            _ => None,
        }
    }
}

/// Waits for as long as this is held back.
async fn wait(shared: &Shared, matches: impl Fn(&Held) -> bool) {
    let mut held = shared.held.subscribe();
    let is_held = held.borrow_and_update().as_ref().is_some_and(&matches);
    if is_held {
        shared.waiting.send_modify(|waiting| *waiting += 1);
        // The gate, which owns the other end, lives longer.
        let _ = held.wait_for(|held| !held.as_ref().is_some_and(&matches)).await;
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if let Some(status) = refusal(&shared, request.uri().path()) {
        let body = serde_json::json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "by the gate",
            "reason": status.canonical_reason(), "code": status.as_u16()});
        return (status, body.to_string()).into_response();
    }
    let (write, method, path) = (
        Write::of(&request),
        request.method().clone(),
        request.uri().path().to_owned(),
    );
    wait(&shared, |held| match held {
        Held::Write(held) => Some(*held) == write,
        Held::Path(by, held) => (by, held) == (&method, &path),
        Held::Watch(_) => false,
    })
    .await;
    if let Some(write) = Write::of(&request) {
        shared.writes.lock().unwrap().push(write);
    }
    let cut = match *shared.cut.borrow() {
        Cut::At(write, lost) if Write::of(&request) == Some(write) => Some(lost),
        Cut::Done => Some(Lost::Request),
        _ => None,
    };
    if cut == Some(Lost::Request) {
        shared.cut.send_replace(Cut::Done);
        return never().await;
    }
    let response = forward(&shared, request).await;
    if cut == Some(Lost::Answer) {
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

/// The process that waits for this is going to be killed.
async fn never() -> Response {
    std::future::pending().await
}

async fn forward(shared: &Arc<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let mut uri = head.uri.to_string();
    let watches = head.uri.query().is_some_and(|query| query.contains("watch=true"));
    let kind = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
    if watches && shared.expiring.lock().unwrap().remove(&kind) {
        uri = forgotten(&uri);
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
                    wait(&holder, |held| *held == Held::Watch(kind.clone())).await;
                    chunk
                }
            });
            Body::from_stream(chunks.take_until(async move { generation.changed().await.is_ok() }))
        }
        false => Body::from_stream(chunks),
    };
    response.body(body).unwrap()
}

/// The same watch, from the beginning of the cluster's time.
fn forgotten(uri: &str) -> String {
    let (path, query) = uri.split_once('?').unwrap();
    let fields = query
        .split('&')
        .map(|field| match field.starts_with("resourceVersion=") {
            true => "resourceVersion=1",
            false => field,
        });
    format!("{path}?{}", fields.collect::<Vec<_>>().join("&"))
}
