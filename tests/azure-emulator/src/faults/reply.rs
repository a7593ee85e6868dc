//! What a fault makes of a reply.

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::Value;

use super::{BadBody, ExpiresIn, Fault, trickle::Trickle};
use crate::acr::errors as acr;
use crate::endpoint::Endpoint;
use crate::entra::errors::{EntraError, Frame};
use crate::managed_identity::errors as managed_identity;

const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1></center>\r\n</body>\r\n</html>\r\n";

/// Bytes of a body that does not end soon.
const ENDLESS: usize = 4 * 1024 * 1024;
/// Among others a new line, a colour, and a change of the direction of writing.
const HOSTILE: &str =
    "x'; touch /tmp/pwned; '$(touch /tmp/pwned) \u{1b}[31m\u{202e}\r\nlevel=INFO everything is well";

/// What happens instead of, or to, the right reply.
pub(crate) enum Effect {
    Hang,
    Reset,
    Answer(Response<Body>),
    /// The right reply is made, then spoilt by [`spoil`].
    Spoil,
}

pub(crate) fn effect(fault: &Fault, frame: &Frame<'_>) -> Effect {
    if fault.hang {
        return Effect::Hang;
    }
    if fault.reset {
        return Effect::Reset;
    }
    let mut response = if let Some(code) = fault.aadsts {
        let mut response = EntraError::sample(code).response(&Frame {
            escapes: fault.escapes.unwrap_or(true),
            ..*frame
        });
        if let Some(status) = fault.status {
            *response.status_mut() = status_code(status);
        }
        response
    } else if let Some(status) = fault.status {
        plain(fault.endpoint, status, frame)
    } else if let Some(location) = fault
        .redirect
        .as_deref()
        .and_then(|url| HeaderValue::from_str(url).ok())
    {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
        response
    } else {
        return Effect::Spoil;
    };
    if let Some(seconds) = fault.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Effect::Answer(response)
}

/// The status with the error body that the service itself would send.
fn plain(endpoint: Endpoint, status: u16, frame: &Frame<'_>) -> Response<Body> {
    let status = status_code(status);
    if endpoint.is_managed_identity() {
        return managed_identity::sample(endpoint, status);
    }
    let mut response = match (endpoint.is_entra(), status) {
        (true, StatusCode::TOO_MANY_REQUESTS) => EntraError::sample(90055).response(frame),
        (true, _) => EntraError::sample(90033).response(frame),
        (false, StatusCode::TOO_MANY_REQUESTS) => acr::error(
            status,
            "TOOMANYREQUESTS",
            "Too many requests. Please visit https://aka.ms/acr/skus#sku-feature-matrix for more information.",
        ),
        (false, StatusCode::FORBIDDEN) => acr::error(
            status,
            "DENIED",
            "client with IP '192.0.2.1' is not allowed access. Refer https://aka.ms/acr/firewall to grant access.",
        ),
        (false, StatusCode::UNAUTHORIZED) => acr::unauthorized(),
        (false, _) => acr::error(status, "UNKNOWN", "unknown error"),
    };
    *response.status_mut() = status;
    response
}

/// A fault's status was checked when it was set.
fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Changes a reply as the fault asks: its body or the pace of it, its `expires_in`, its realm, its number of fields.
pub(crate) async fn spoil(fault: &Fault, response: Response<Body>) -> Response<Body> {
    let mut response = response;
    if let Some(realm) = &fault.realm {
        set_realm(&mut response, realm);
    }
    if fault.body.is_none() && fault.expires_in.is_none() && !fault.extra_numbers && fault.slow.is_none() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    if let Some(time) = fault.slow {
        return Response::from_parts(parts, Body::new(Trickle::new(body, time)));
    }
    parts.headers.remove(CONTENT_LENGTH);
    let body = match fault.body {
        Some(BadBody::Html) => {
            parts
                .headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
            HTML.into()
        }
        Some(BadBody::Truncated) => body.slice(..body.len() / 2),
        Some(BadBody::Empty) => Default::default(),
        Some(BadBody::Endless) => Value::from("x".repeat(ENDLESS)).to_string().into(),
        Some(BadBody::Hostile) => hostile().to_string().into(),
        None => match serde_json::from_slice(&body) {
            Ok(Value::Object(mut object)) => {
                match fault.expires_in {
                    Some(ExpiresIn::Missing) => drop(object.remove("expires_in")),
                    Some(ExpiresIn::Quoted) => {
                        let quoted = object
                            .get("expires_in")
                            .map(|number| Value::from(number.to_string()));
                        object.extend(quoted.map(|quoted| ("expires_in".to_owned(), quoted)));
                    }
                    None => {}
                }
                if fault.extra_numbers {
                    object.extend(
                        [("expires_in", 10_800), ("not_before", 0)]
                            .map(|(k, n)| (k.to_owned(), Value::from(n))),
                    );
                }
                return Response::from_parts(parts, Body::from(Value::Object(object).to_string()));
            }
            _ => body,
        },
    };
    Response::from_parts(parts, Body::from(body))
}

/// In the forms of ACR and of Entra at the same time, with a code of Entra's for which clients have advice.
fn hostile() -> Value {
    let words = format!("{HOSTILE} {}", "long ".repeat(20_000));
    serde_json::json!({
        "errors": [{"code": "DENIED\n", "message": words}],
        "error": "unauthorized_client",
        "error_description": format!("AADSTS700016: {words}"),
        "error_codes": [700_016],
    })
}

fn set_realm(response: &mut Response<Body>, realm: &str) {
    let Some(old) = response
        .headers()
        .get(WWW_AUTHENTICATE)
        .and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let rest = old.split_once(",service=").map_or("", |(_, rest)| rest);
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer realm=\"{realm}\",service={rest}")) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
}
