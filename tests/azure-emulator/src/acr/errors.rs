//! ACR's error bodies.

use axum::body::Body;
use hyper::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::access::{Access, Kind};
use crate::http;

const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const AUTHENTICATION_REQUIRED: &str =
    "authentication required, visit https://aka.ms/acr/authorization for more information.";

/// Why a request is sent to get a (better) token.
#[derive(Clone, Copy)]
pub(crate) enum Reason {
    NoCredential,
    InvalidToken,
    InsufficientScope,
}

pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    detailed(status, code, message, Value::Null)
}

/// 401 of the token endpoints, which name no reason.
pub(crate) fn unauthorized() -> Response<Body> {
    error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", AUTHENTICATION_REQUIRED)
}

/// 401 with the challenge that says where a token for the needed access is had.
pub(crate) fn challenge(host: &str, needed: &[Access], reason: Reason) -> Response<Body> {
    let mut challenge = format!("Bearer realm=\"https://{host}/oauth2/token\",service=\"{host}\"");
    if !needed.is_empty() {
        let scopes: Vec<String> = needed.iter().map(Access::to_string).collect();
        challenge.push_str(&format!(",scope=\"{}\"", scopes.join(" ")));
    }
    challenge.push_str(match reason {
        Reason::NoCredential => "",
        Reason::InvalidToken => ",error=\"invalid_token\"",
        Reason::InsufficientScope => ",error=\"insufficient_scope\"",
    });
    let mut response = detailed(
        StatusCode::UNAUTHORIZED,
        "UNAUTHORIZED",
        AUTHENTICATION_REQUIRED,
        detail(needed),
    );
    // A host name and scopes hold nothing that a header could not.
    if let Ok(value) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response.headers_mut().insert(
        "docker-distribution-api-version",
        HeaderValue::from_static("registry/2.0"),
    );
    response
}

fn detail(needed: &[Access]) -> Value {
    let entry = |access: &Access, action: &String| {
        let kind = match access.kind {
            Kind::Registry => "registry",
            Kind::Repository => "repository",
        };
        json!({"Type": kind, "Name": access.name, "Action": action})
    };
    let entries = needed
        .iter()
        .flat_map(|access| access.actions.iter().map(move |action| entry(access, action)));
    match needed {
        [] => Value::Null,
        _ => entries.collect(),
    }
}

fn detailed(status: StatusCode, code: &str, message: &str, detail: Value) -> Response<Body> {
    let mut response = http::json(
        status,
        &json!({"errors": [{"code": code, "message": message, "detail": detail}]}),
    );
    if let Ok(id) = HeaderValue::from_str(&http::uuid()) {
        response.headers_mut().insert(CORRELATION_ID, id);
    }
    response
}
