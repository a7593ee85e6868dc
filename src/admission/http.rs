//! The HTTPS endpoint that the API server calls.

use super::{Admission, AdmissionResponse, Verdict, parse, response::refusal};
use crate::{
    deadline::Deadline,
    problem::{Problem, Reason},
    tls::HttpService,
};
use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    handler::Handler,
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The maximum size of a body. A review contains an object, which etcd limits to 1.5 MiB by default, and the API server
/// itself accepts no request of more than 3 MiB.
const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;
/// The maximum size of a small body. Small bodies need no permit, because one body per connection is harmless.
const SMALL_BODY_BYTES: usize = 16 * 1024;
/// The maximum size of a medium body, for the review of an unusually large Pod. Anything above is a large body.
const MEDIUM_BODY_BYTES: usize = 256 * 1024;
/// The maximum number of medium bodies in memory.
const MEDIUM_BODY_PERMITS: usize = 32;
/// The maximum number of large bodies in memory.
const LARGE_BODY_PERMITS: usize = 2;
/// The time limit for reading a body after its headers, including the wait for a permit.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The typical size of a response with a patch.
const TYPICAL_RESPONSE_BYTES: usize = 1024;
const JSON: &str = "application/json";

struct Endpoint {
    admission: Admission,
    permits: BodyPermits,
}

/// Limits the memory for bodies. A body acquires a permit when more bytes have arrived than a small body has, so that a
/// client that announces a large body and sends little holds no permit. A permit covers the largest body of its class,
/// and a body with a large permit waits for no other permit, so bodies that have arrived in part cannot deadlock.
struct BodyPermits {
    medium: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl BodyPermits {
    fn new() -> Self {
        Self {
            medium: Arc::new(Semaphore::new(MEDIUM_BODY_PERMITS)),
            large: Arc::new(Semaphore::new(LARGE_BODY_PERMITS)),
        }
    }

    /// Reads a body and acquires its permit. The `Content-Length` is only trusted if it is above the limit.
    async fn read(&self, content_length: Option<usize>, body: Body) -> Result<CompleteBody, Response> {
        let mut chunks = body.into_data_stream();
        if content_length.is_some_and(|length| length > MAX_BODY_BYTES) {
            // A client does not read the response while it is sending, so the rest of its body is read until the time
            // limit.
            chunks.for_each(|_| std::future::ready(())).await;
            return Err(too_long());
        }
        let Some(first) = chunks.next().await else {
            return Ok(CompleteBody {
                bytes: Bytes::new(),
                permit: None,
            });
        };
        let first = first.map_err(|_| incomplete())?;
        if content_length == Some(first.len()) && first.len() <= SMALL_BODY_BYTES {
            return Ok(CompleteBody {
                bytes: first,
                permit: None,
            });
        }
        let mut bytes = Vec::with_capacity(content_length.unwrap_or_default().min(SMALL_BODY_BYTES));
        let mut permit = None;
        let mut permitted_bytes = SMALL_BODY_BYTES;
        let mut next = Some(Ok(first));
        while let Some(chunk) = next {
            let chunk = chunk.map_err(|_| incomplete())?;
            let length = bytes.len() + chunk.len();
            if length > MAX_BODY_BYTES {
                return Err(too_long());
            }
            if length > permitted_bytes {
                // A body that will be large waits for a large permit now, while it occupies little memory, and does not
                // acquire a medium permit first.
                let (class_bytes, permits) = match length.max(content_length.unwrap_or_default()) {
                    ..=MEDIUM_BODY_BYTES => (MEDIUM_BODY_BYTES, &self.medium),
                    _ => (MAX_BODY_BYTES, &self.large),
                };
                let acquired = permits.clone().acquire_owned().await;
                permit = Some(acquired.map_err(|_| incomplete())?);
                permitted_bytes = class_bytes;
                // Reserved once, and not by doubling. Unwritten pages take no memory.
                let rest = content_length.unwrap_or(class_bytes).saturating_sub(bytes.len());
                bytes.reserve_exact(rest);
            }
            bytes.extend_from_slice(&chunk);
            next = chunks.next().await;
        }
        Ok(CompleteBody {
            bytes: bytes.into(),
            permit,
        })
    }
}

/// A complete body, and its permit unless the body is small.
struct CompleteBody {
    bytes: Bytes,
    permit: Option<OwnedSemaphorePermit>,
}

/// Handles every request that the listener accepts. It is not a router, because the listener checks the path.
pub fn service(admission: Admission) -> impl HttpService {
    let permits = BodyPermits::new();
    mutate.with_state(Arc::new(Endpoint { admission, permits }))
}

/// The time-out of the API server, which is a parameter of the query. A duration contains no character that is encoded.
fn timeout_parameter(query: Option<&str>) -> Option<&str> {
    query?
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("timeout="))
}

/// Reads the head before the future exists, which would otherwise hold the head until the response.
fn mutate(State(endpoint): State<Arc<Endpoint>>, request: Request) -> impl Future<Output = Response> {
    let (Parts { uri, headers, .. }, body) = request.into_parts();
    let deadline = Deadline::from_query(timeout_parameter(uri.query()));
    let (is_json, content_length) = (is_json(&headers), content_length(&headers));
    async move {
        if is_json {
            endpoint.answer(content_length, body, deadline).await
        } else {
            invalid_review(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the content type is not application/json".to_owned(),
            )
        }
    }
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

impl Endpoint {
    async fn answer(&self, content_length: Option<usize>, body: Body, deadline: Deadline) -> Response {
        let read = deadline
            .at_most(BODY_TIMEOUT)
            .bound(self.permits.read(content_length, body))
            .await;
        let body = match read {
            Some(Ok(body)) => body,
            Some(Err(response)) => return response,
            // Not 408, because client-go discards the message of a 408.
            None => {
                return invalid_review(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()),
                );
            }
        };
        let CompleteBody { bytes, permit } = body;
        if let Some(permit) = permit {
            // Boxed so that the future of a small review stays small.
            return Box::pin(self.review_large(bytes, permit, deadline)).await;
        }
        let request = match parse(&bytes) {
            Ok(request) => request,
            Err(error) => return parse_error_response(error),
        };
        let verdict = self.admission.decide(&request, deadline).await;
        verdict_response(&request.uid, &verdict)
    }

    /// Parses a body that is not small on a blocking thread, because megabytes would keep a worker thread from all other
    /// tasks, including probes. The permit is released after parsing, and not held while the request waits for Azure.
    async fn review_large(&self, bytes: Bytes, permit: OwnedSemaphorePermit, deadline: Deadline) -> Response {
        let parsed = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            parse_detached(&bytes)
        });
        match parsed.await {
            Ok(Ok(request)) => {
                let verdict = self.admission.decide(&request, deadline).await;
                verdict_response(&request.uid, &verdict)
            }
            Ok(Err(error)) => parse_error_response(error),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Parses a review to a request that does not borrow the body.
fn parse_detached(body: &[u8]) -> Result<super::Request<'static>, (Option<String>, Problem)> {
    let request = parse(body)?;
    let uid = request.uid.to_string();
    request.detached().map_err(|problem| (Some(uid), problem))
}

/// The response to a review that could not be parsed, whose uid may be unknown.
fn parse_error_response((uid, problem): (Option<String>, Problem)) -> Response {
    match uid {
        Some(uid) => verdict_response(&uid, &Verdict::Denied(problem)),
        None => error_response(StatusCode::BAD_REQUEST, &problem.full()),
    }
}

fn verdict_response(uid: &str, verdict: &Verdict) -> Response {
    // An API server treats every status other than 200 as a failed call, and then failurePolicy applies.
    if let Verdict::Failed(problem) = verdict {
        return error_response(StatusCode::INTERNAL_SERVER_ERROR, &refusal(problem, uid));
    }
    let mut json = Vec::with_capacity(TYPICAL_RESPONSE_BYTES);
    match serde_json::to_writer(&mut json, &AdmissionResponse::new(uid, verdict)) {
        Ok(()) => json_response(StatusCode::OK, json),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The response of a failed call. The API server does not parse an AdmissionReview then, but it passes a
/// `metav1.Status` on to the creator of the Pod.
fn error_response(status: StatusCode, message: &str) -> Response {
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
        "message": message,
        "reason": reason,
        "code": status.as_u16(),
    });
    json_response(status, body.to_string())
}

fn json_response(status: StatusCode, json: impl Into<Body>) -> Response {
    let mut response = Response::new(json.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

fn invalid_review(status: StatusCode, why: String) -> Response {
    error_response(status, &Problem::new(Reason::InvalidReview, why).full())
}

fn too_long() -> Response {
    let why = format!("the body is longer than {MAX_BODY_BYTES} bytes");
    invalid_review(StatusCode::PAYLOAD_TOO_LARGE, why)
}

fn incomplete() -> Response {
    invalid_review(StatusCode::BAD_REQUEST, "the body is incomplete".to_owned())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| v.trim().eq_ignore_ascii_case(JSON))
}

#[cfg(test)]
mod tests;
