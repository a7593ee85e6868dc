//! The answers that faults make.

use super::{ExpiresIn, InvalidBody, trickle::Trickle};
use crate::{acr::errors as acr, endpoint::Endpoint, entra::errors as entra, managed_identity};
use axum::body::Body;
use http_body_util::{BodyExt, Collected};
use hyper::{
    Response, StatusCode, Uri,
    body::Bytes,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER},
};
use serde_json::{Value, json};
use std::time::Duration;

const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>";

/// The size of a body that is longer than any client should read.
const ENDLESS_BYTES: usize = 4 * 1024 * 1024;
/// A command for a shell, a color for a terminal, a change of the writing direction, and a second log line.
const HOSTILE_TEXT: &str =
    "x'; touch /tmp/pwned; '$(touch /tmp/pwned) \u{1b}[31m\u{202e}\r\nlevel=INFO everything is well";

/// An error with the error document of the service.
pub async fn error(
    endpoint: Endpoint,
    status: StatusCode,
    retry_after: Option<u64>,
    body: Option<InvalidBody>,
    now: i64,
) -> Response<Body> {
    let mut response = if endpoint.is_managed_identity() {
        managed_identity::error(endpoint, status, "Failed to retrieve a token from Entra.")
    } else if endpoint.is_entra() {
        entra::requested(entra::TRANSIENT).response(now)
    } else {
        acr::error(status, "UNKNOWN", "this error was requested by a fault")
    };
    *response.status_mut() = status;
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    match body {
        Some(body) => with_body(response, body).await,
        None => response,
    }
}

pub fn redirect(location: &Uri) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    // A URI consists of characters that a header may contain.
    if let Ok(location) = HeaderValue::try_from(location.to_string()) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

pub async fn slow(response: Response<Body>, time: Duration) -> Response<Body> {
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, Body::new(Trickle::new(read(body).await, time)))
}

pub async fn with_body(response: Response<Body>, invalid: InvalidBody) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    let body = match invalid {
        InvalidBody::Html => {
            let html = HeaderValue::from_static("text/html");
            parts.headers.insert(CONTENT_TYPE, html);
            HTML.into()
        }
        InvalidBody::Empty => Bytes::new(),
        InvalidBody::Truncated => {
            let body = read(body).await;
            body.slice(..body.len() / 2)
        }
        InvalidBody::Endless => json!("x".repeat(ENDLESS_BYTES)).to_string().into(),
        InvalidBody::Hostile => hostile().to_string().into(),
    };
    Response::from_parts(parts, body.into())
}

/// Changes `expires_in` of a JSON document.
pub async fn with_expires_in(response: Response<Body>, change: ExpiresIn) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let body = read(body).await;
    let Ok(mut document) = serde_json::from_slice::<Value>(&body) else {
        return Response::from_parts(parts, body.into());
    };
    match (change, document.as_object_mut()) {
        (ExpiresIn::Missing, Some(fields)) => drop(fields.remove("expires_in")),
        (ExpiresIn::Quoted, Some(fields)) => {
            for (_, number) in fields.iter_mut().filter(|(name, _)| *name == "expires_in") {
                *number = number.to_string().into();
            }
        }
        (_, None) => {}
    }
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, document.to_string().into())
}

/// The whole body. Empty if the registry behind the emulator breaks off.
async fn read(body: Body) -> Bytes {
    body.collect().await.map(Collected::to_bytes).unwrap_or_default()
}

/// A document in the formats of ACR and Entra at the same time, with an AADSTS number for which clients have advice.
fn hostile() -> Value {
    let text = format!("{HOSTILE_TEXT} {}", "long ".repeat(20_000));
    json!({
        "errors": [{"code": "DENIED\n", "message": text}],
        "error": "unauthorized_client",
        "error_description": format!("AADSTS700016: {text}"),
        "error_codes": [700_016],
    })
}
