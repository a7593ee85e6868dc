//! Entra's errors: AADSTS numbers, with their HTTP status and error document.

use crate::http;
use axum::body::Body;
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

/// "A transient error has occurred. Please try again."
pub const TRANSIENT: u32 = 90033;
/// The tenant sent too many requests.
const THROTTLED: u32 = 90055;

/// An error with its AADSTS number.
#[derive(Debug, PartialEq)]
pub struct EntraError {
    code: u32,
    text: String,
}

impl EntraError {
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// The response, with the time in seconds since 1970.
    pub fn response(&self, now: i64) -> Response<Body> {
        let (trace_id, correlation_id) = (Uuid::new_v4(), Uuid::new_v4());
        let timestamp = Timestamp::from_second(now)
            .unwrap_or(Timestamp::UNIX_EPOCH)
            .strftime("%Y-%m-%d %H:%M:%SZ")
            .to_string();
        let description = format!(
            "AADSTS{}: {}\r\nTrace ID: {trace_id}\r\nCorrelation ID: {correlation_id}\r\nTimestamp: {timestamp}",
            self.code, self.text
        );
        let document = json!({
            "error": self.oauth_error(),
            "error_description": description,
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": format!("https://login.microsoftonline.com/error?code={}", self.code),
        });
        http::json(self.status(), &document)
    }

    fn status(&self) -> StatusCode {
        match self.code {
            THROTTLED => StatusCode::TOO_MANY_REQUESTS,
            TRANSIENT => StatusCode::SERVICE_UNAVAILABLE,
            70021 | 70025 | 700024 | 700027 | 7000272 | 700211..=700213 | 7002138 | 7000215 => {
                StatusCode::UNAUTHORIZED
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn oauth_error(&self) -> &'static str {
        match self.code {
            70003 => "unsupported_grant_type",
            1002012 => "invalid_scope",
            500011 => "invalid_resource",
            700016 => "unauthorized_client",
            TRANSIENT | THROTTLED => "temporarily_unavailable",
            _ if self.status() == StatusCode::UNAUTHORIZED => "invalid_client",
            _ => "invalid_request",
        }
    }
}

/// The error with this number, for a fault.
pub fn requested(code: u32) -> EntraError {
    EntraError::new(code, "This error was requested by a fault.")
}
