//! The HTTPS endpoint that the API server calls.

use super::{Admission, Answer, Verdict, parse};
use crate::{
    deadline::Deadline,
    problem::{Problem, Reason},
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;

/// An object in etcd has at most 1.5 MiB by default, and a review holds one; the API
/// server itself takes no request over 3 MiB.
const MAX_BODY: usize = 3 * 1024 * 1024;

#[derive(Deserialize)]
struct Params {
    timeout: Option<String>,
}

/// `POST /mutate`.
pub fn router(admission: Admission) -> Router {
    Router::new()
        .route("/mutate", post(mutate).fallback(wrong_method))
        .fallback(|| async { (StatusCode::NOT_FOUND, "only POST /mutate is served here\n") })
        .with_state(admission)
}

async fn wrong_method() -> Response {
    (
        StatusCode::METHOD_NOT_ALLOWED,
        [(header::ALLOW, "POST")],
        "send an AdmissionReview by POST\n",
    )
        .into_response()
}

async fn mutate(State(admission): State<Admission>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let timeout = Query::<Params>::try_from_uri(&uri)
        .ok()
        .and_then(|params| params.0.timeout);
    let deadline = Deadline::from_query(timeout.as_deref());
    if !is_json(&headers) {
        return unreadable(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type is not application/json".to_owned(),
        );
    }
    let body = match deadline.bound(axum::body::to_bytes(body, MAX_BODY)).await {
        Some(Ok(body)) => body,
        Some(Err(_)) => {
            return unreadable(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body was not read whole, or is longer than {MAX_BODY} bytes"),
            );
        }
        None => {
            return unreadable(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time".to_owned(),
            );
        }
    };
    review(&admission, &body, deadline).await
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
    match serde_json::to_vec(&Answer::new(uid, verdict)) {
        Ok(json) => (status, [(header::CONTENT_TYPE, "application/json")], json).into_response(),
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
