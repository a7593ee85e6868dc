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
};
use futures::StreamExt;
use serde_json::json;
use std::{borrow::Cow, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An object in etcd has at most 1.5 MiB by default, and a review holds one; the API
/// server itself takes no request over 3 MiB.
const MAX_BODY: usize = 3 * 1024 * 1024;
/// A body of this size needs no room: as many as there are connections are no harm.
const SMALL: usize = 16 * 1024;
/// Reviews of Pods with much in them. A body of no more than this is a medium one, beyond it is a large one.
const MEDIUM: usize = 256 * 1024;
/// Medium bodies that are held at the same time.
const MEDIUM_ROOMS: usize = 32;
/// Large bodies that are held at the same time.
const LARGE_ROOMS: usize = 2;
/// From the head to the end of the body, the wait for a room included.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// An answer with a patch in it has this many bytes and no more, as a rule.
const ANSWER: usize = 1024;
const JSON: &str = "application/json";

#[derive(Clone)]
struct Endpoint {
    admission: Admission,
    rooms: Rooms,
}

/// Memory for bodies. A body takes a room when more of it has come than fits in a smaller one, whatever it declares: who
/// declares much and sends little holds nothing. Each room is for a body's whole class, and nobody who has a large one waits
/// for another, so that bodies which are read in part never wait for each other.
#[derive(Clone)]
struct Rooms {
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// A whole body, and its room.
struct Whole {
    bytes: Bytes,
    room: Option<OwnedSemaphorePermit>,
}

/// Answers whatever the listener lets in.
pub fn router(admission: Admission) -> Router {
    let rooms = Rooms::new();
    Router::new()
        .fallback(mutate)
        .with_state(Endpoint { admission, rooms })
}

/// The API server's own time-out, of the query.
fn timeout(query: Option<&str>) -> Option<Cow<'_, str>> {
    let mut parameters = form_urlencoded::parse(query?.as_bytes());
    parameters
        .find(|(name, _)| name == "timeout")
        .map(|(_, value)| value)
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
    let read = endpoint.rooms.read(declared(&headers), body);
    match deadline.at_most(BODY_TIMEOUT).bound(read).await {
        Some(Ok(whole)) => review(&endpoint.admission, whole, deadline).await,
        Some(Err(response)) => response,
        // Not 408, whose words client-go does not keep.
        None => unreadable(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the body did not come within {} s", BODY_TIMEOUT.as_secs()),
        ),
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

// === impl Rooms ===

impl Rooms {
    fn new() -> Self {
        Self {
            medium: Arc::new(Semaphore::new(MEDIUM_ROOMS)),
            large: Arc::new(Semaphore::new(LARGE_ROOMS)),
        }
    }

    /// The whole body, in its room. What it declares is believed where it is too much, and nowhere else.
    async fn read(&self, declared: Option<usize>, body: Body) -> Result<Whole, Response> {
        let mut chunks = body.into_data_stream();
        if declared.is_some_and(|length| length > MAX_BODY) {
            // A client that is still sending does not see an answer, so its body is read to the end, for a while.
            chunks.for_each(|_| std::future::ready(())).await;
            return Err(too_long());
        }
        let Some(first) = chunks.next().await else {
            return Ok(Whole {
                bytes: Bytes::new(),
                room: None,
            });
        };
        let first = first.map_err(|_| cut_off())?;
        if declared == Some(first.len()) && first.len() <= SMALL {
            return Ok(Whole {
                bytes: first,
                room: None,
            });
        }
        let mut whole = Vec::with_capacity(declared.unwrap_or_default().min(SMALL));
        let (mut room, mut fits) = (None, SMALL);
        let mut next = Some(Ok(first));
        while let Some(chunk) = next {
            let chunk = chunk.map_err(|_| cut_off())?;
            let length = whole.len() + chunk.len();
            if length > MAX_BODY {
                return Err(too_long());
            }
            if length > fits {
                // One that will be large waits here, where it holds little, and not in a medium room.
                let (class, rooms) = match length.max(declared.unwrap_or_default()) {
                    ..=MEDIUM => (MEDIUM, &self.medium),
                    _ => (MAX_BODY, &self.large),
                };
                let next = rooms.clone().acquire_owned().await;
                room = Some(next.map_err(|_| cut_off())?);
                fits = class;
                // At once, and not twice as much each time. What is not written takes no memory.
                let rest = declared.unwrap_or(class).saturating_sub(whole.len());
                whole.reserve_exact(rest);
            }
            whole.extend_from_slice(&chunk);
            next = chunks.next().await;
        }
        Ok(Whole {
            bytes: whole.into(),
            room,
        })
    }
}

async fn review(admission: &Admission, whole: Whole, deadline: Deadline) -> Response {
    let Whole { bytes, room } = whole;
    let Some(room) = room else {
        return match parse(&bytes) {
            Ok(request) => {
                let verdict = admission.decide(&request, deadline).await;
                answer(&request.uid, &verdict)
            }
            Err(unread) => unread_answer(unread),
        };
    };
    // On a thread of its own: a review of megabytes would keep a worker from all other tasks, probes among them. The room is
    // for bodies that are being read, not for those that wait for Azure.
    let parsed = tokio::task::spawn_blocking(move || {
        let _room = room;
        parse_detached(&bytes)
    });
    match parsed.await {
        Ok(Ok(request)) => {
            let verdict = Box::pin(admission.decide(&request, deadline)).await;
            answer(&request.uid, &verdict)
        }
        Ok(Err(unread)) => unread_answer(unread),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What a decision needs of a review, without its body.
fn parse_detached(body: &[u8]) -> Result<super::Request<'static>, (Option<String>, Problem)> {
    let request = parse(body)?;
    let uid = request.uid.to_string();
    request.detached().map_err(|problem| (Some(uid), problem))
}

/// The answer to a review that could not be read, or whose uid could not.
fn unread_answer((uid, problem): (Option<String>, Problem)) -> Response {
    match uid {
        Some(uid) => answer(&uid, &Verdict::Denied(problem)),
        None => failed(StatusCode::BAD_REQUEST, &problem),
    }
}

fn answer(uid: &str, verdict: &Verdict) -> Response {
    // Any status but 200 is a failed call to the API server, which is when failurePolicy decides.
    if let Verdict::Failed(problem) = verdict {
        return failed(StatusCode::INTERNAL_SERVER_ERROR, problem);
    }
    let mut json = Vec::with_capacity(ANSWER);
    match serde_json::to_writer(&mut json, &Answer::new(uid, verdict)) {
        Ok(()) => (StatusCode::OK, [(header::CONTENT_TYPE, JSON)], json).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A failed call. The API server reads no review then, but shows a `metav1.Status` to whoever made the Pod.
fn failed(status: StatusCode, problem: &Problem) -> Response {
    let reason = match status {
        StatusCode::INTERNAL_SERVER_ERROR => "InternalError",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        _ => "BadRequest",
    };
    let body = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": problem.to_string(),
        "reason": reason,
        "code": status.as_u16(),
    });
    (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

fn unreadable(status: StatusCode, why: String) -> Response {
    failed(status, &Problem::new(Reason::InvalidReview, why))
}

fn too_long() -> Response {
    let why = format!("the body is longer than {MAX_BODY} bytes");
    unreadable(StatusCode::PAYLOAD_TOO_LARGE, why)
}

fn cut_off() -> Response {
    unreadable(StatusCode::BAD_REQUEST, "the body was cut off".to_owned())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests;
