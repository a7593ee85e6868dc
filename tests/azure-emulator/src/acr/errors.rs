//! ACR's error documents.

use super::access::Access;
use crate::http;
use axum::body::Body;
use hyper::{
    Response, StatusCode,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde_json::json;

const AUTHENTICATION_REQUIRED: &str =
    "authentication required, visit https://aka.ms/acr/authorization for more information.";

/// Why a request needs another token.
#[derive(Clone, Copy)]
pub enum Reason {
    NoCredential,
    InvalidToken,
    InsufficientScope,
}

pub fn error(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    http::json(
        status,
        &json!({"errors": [{"code": code, "message": message, "detail": null}]}),
    )
}

/// The error of the token endpoints.
pub fn unauthorized() -> Response<Body> {
    error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", AUTHENTICATION_REQUIRED)
}

/// The error of the registry, with the address of the token endpoint and the scope to request.
pub fn challenge(host: &str, scope: Option<&Access>, reason: Reason) -> Response<Body> {
    let mut challenge = format!("Bearer realm=\"https://{host}/oauth2/token\",service=\"{host}\"");
    if let Some(scope) = scope {
        challenge.push_str(&format!(",scope=\"{scope}\""));
    }
    challenge.push_str(match reason {
        Reason::NoCredential => "",
        Reason::InvalidToken => ",error=\"invalid_token\"",
        Reason::InsufficientScope => ",error=\"insufficient_scope\"",
    });
    let mut response = unauthorized();
    // Host names and scopes consist of characters that a header may contain.
    if let Ok(value) = HeaderValue::from_str(&challenge) {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    let version = HeaderValue::from_static("registry/2.0");
    response
        .headers_mut()
        .insert("docker-distribution-api-version", version);
    response
}
