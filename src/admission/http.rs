//! The HTTPS endpoint that the API server calls.

use super::{Admission, Answer, Verdict, parse};
use crate::{
    deadline::Deadline,
    problem::{Problem, Reason},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt;
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::sync::{Semaphore, SemaphorePermit};

/// An object in etcd has at most 1.5 MiB by default, and a review holds one; the API
/// server itself takes no request over 3 MiB.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// An answer with a patch in it has this many bytes and no more, as a rule.
const ANSWER: usize = 1024;
/// Bodies that are read at the same time, in bytes: whoever reaches the port could otherwise fill
/// our memory. An API server's reviews are some KiB each and here at once.
const MAX_BODIES: usize = 32 * 1024 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Endpoint {
    admission: Admission,
    bodies: Arc<Semaphore>,
}

/// `POST /mutate`.
pub fn router(admission: Admission) -> Router {
    let bodies = Arc::new(Semaphore::new(MAX_BODIES));
    Router::new()
        .route("/mutate", post(mutate).fallback(wrong_method))
        .fallback(|| async { (StatusCode::NOT_FOUND, "only POST /mutate is served here\n") })
        .with_state(Endpoint { admission, bodies })
}

/// The API server's own time-out, of the query.
fn timeout(query: Option<&str>) -> Option<Cow<'_, str>> {
    let mut parameters = form_urlencoded::parse(query?.as_bytes());
    parameters
        .find(|(name, _)| name == "timeout")
        .map(|(_, value)| value)
}

async fn wrong_method() -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(header::ALLOW, "POST")],
        "send an AdmissionReview by POST\n",
    )
        .into_response()
}

async fn mutate(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let (Parts { uri, headers, .. }, body) = request.into_parts();
    let deadline = Deadline::from_query(timeout(uri.query()).as_deref());
    if !is_json(&headers) {
        return unreadable(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type is not application/json".to_owned(),
        );
    }
    let (body, _room) = match endpoint.read(&headers, body, deadline).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    review(&endpoint.admission, &body, deadline).await
}

// === impl Endpoint ===

impl Endpoint {
    /// The whole body, and the room it takes until it is dropped.
    async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        deadline: Deadline,
    ) -> Result<(Bytes, SemaphorePermit<'_>), Response> {
        let told = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse().ok());
        let length = told.unwrap_or(MAX_BODY);
        let too_long = || {
            let why = format!("the body was not read whole, or is longer than {MAX_BODY} bytes");
            unreadable(StatusCode::PAYLOAD_TOO_LARGE, why)
        };
        if length > MAX_BODY {
            discard(body).await;
            return Err(too_long());
        }
        let room = u32::try_from(length).unwrap_or(u32::MAX);
        let read = async {
            let room = self.bodies.acquire_many(room).await.map_err(|_| late())?;
            let body = axum::body::to_bytes(body, MAX_BODY).await;
            body.map(|body| (body, room)).map_err(|_| too_long())
        };
        match deadline.at_most(BODY_TIMEOUT).bound(read).await {
            Some(read) => read,
            None => Err(late()),
        }
    }
}

/// A client that is still sending does not see an answer, so its body is read to the end, for a while.
async fn discard(body: Body) {
    let chunks = body.into_data_stream();
    let _ = tokio::time::timeout(BODY_TIMEOUT, chunks.for_each(|_| std::future::ready(()))).await;
}

fn late() -> Response {
    let why = "the body did not come in time".to_owned();
    unreadable(StatusCode::REQUEST_TIMEOUT, why)
}

async fn review(admission: &Admission, body: &Bytes, deadline: Deadline) -> Response {
    match parse(body) {
        Ok(request) => {
            let verdict = admission.decide(&request, deadline).await;
            answer(&request.uid, &verdict)
        }
        Err((Some(uid), problem)) => answer(&uid, &Verdict::Denied(problem)),
        Err((None, problem)) => respond(StatusCode::BAD_REQUEST, "", &Verdict::Denied(problem)),
    }
}

fn answer(uid: &str, verdict: &Verdict) -> Response {
    // Any status but 200 is a failed call to the API server, which is when failurePolicy decides.
    let status = match verdict {
        Verdict::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    respond(status, uid, verdict)
}

fn unreadable(status: StatusCode, why: String) -> Response {
    let problem = Problem::new(Reason::InvalidReview, why);
    respond(status, "", &Verdict::Denied(problem))
}

fn respond(status: StatusCode, uid: &str, verdict: &Verdict) -> Response {
    let mut json = Vec::with_capacity(ANSWER);
    match serde_json::to_writer(&mut json, &Answer::new(uid, verdict)) {
        Ok(()) => (status, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"))
}
