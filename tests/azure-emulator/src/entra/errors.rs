//! Entra's errors: the AADSTS numbers with the status, the OAuth error and the body they come in.

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::http;

mod samples;

/// An error by its AADSTS number.
#[derive(Debug)]
pub(crate) struct EntraError {
    pub(crate) code: u32,
    pub(crate) text: String,
}

/// What an error body says beside the error itself.
pub(crate) struct Frame<'a> {
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// `client-request-id` of the request, which comes back as the correlation id.
    pub(crate) correlation_id: Option<&'a str>,
    /// Whether the description's parts are separated by `\r\n`, as in Microsoft's documentation, or by blanks.
    pub(crate) escapes: bool,
}

// === impl Frame ===

impl Frame<'_> {
    pub(crate) fn now(now: i64) -> Self {
        Self {
            now,
            correlation_id: None,
            escapes: true,
        }
    }
}

// === impl EntraError ===

impl EntraError {
    pub(crate) fn new(code: u32, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The error of that number with the text that real ones have, example values in it; for tests that want to see one.
    pub(crate) fn sample(code: u32) -> Self {
        let text = samples::text(code).unwrap_or("This error was asked for by a fault of azure-emulator.");
        Self::new(code, text)
    }

    /// Also what IMDS hands on.
    pub(crate) fn unknown_resource(resource: &str, tenant: &str) -> Self {
        Self::new(
            500011,
            format!(
                "The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."
            ),
        )
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            70021..=70025
            | 700024
            | 700027
            | 7000272
            | 700211..=700213
            | 7002138
            | 7000215
            | 7000218
            | 7000222 => StatusCode::UNAUTHORIZED,
            90055 => StatusCode::TOO_MANY_REQUESTS,
            90033 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn oauth_error(&self) -> &'static str {
        match self.code {
            70003 => "unsupported_grant_type",
            28000 | 70011 | 1002012 => "invalid_scope",
            500011 | 500014 => "invalid_resource",
            700016 | 7000112 => "unauthorized_client",
            53003 => "invalid_grant",
            50049 => "invalid_instance",
            90033 | 90055 => "temporarily_unavailable",
            _ if self.status() == StatusCode::UNAUTHORIZED => "invalid_client",
            _ => "invalid_request",
        }
    }

    pub(crate) fn response(&self, frame: &Frame<'_>) -> Response<Body> {
        let (trace_id, correlation_id) = (
            http::uuid(),
            frame.correlation_id.map_or_else(http::uuid, str::to_owned),
        );
        let timestamp = timestamp(frame.now);
        let separator = if frame.escapes { "\r\n" } else { " " };
        let description = format!(
            "AADSTS{}: {}{separator}Trace ID: {trace_id}{separator}Correlation ID: {correlation_id}{separator}Timestamp: {timestamp}",
            self.code, self.text
        );
        let mut body = json!({
            "error": self.oauth_error(),
            "error_description": description,
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        });
        // Seen without it in Azure Workload Identity's troubleshooting page.
        if self.code != 90061 {
            body["error_uri"] = format!("https://login.microsoftonline.com/error?code={}", self.code).into();
        }
        http::json(self.status(), &body)
    }
}

fn timestamp(now: i64) -> String {
    jiff::Timestamp::from_second(now)
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .strftime("%Y-%m-%d %H:%M:%SZ")
        .to_string()
}
