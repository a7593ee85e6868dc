//! Entra's errors: the AADSTS numbers with the status, the OAuth error and the body they come in.

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::http;

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

// === impl EntraError ===

impl EntraError {
    pub(crate) fn new(code: u32, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// The error of that number with a text that fits, for tests that want to see one.
    pub(crate) fn sample(code: u32) -> Self {
        let text = match code {
            70021 => {
                "No matching federated identity record found for presented assertion. Assertion Issuer: 'https://issuer.example'. Assertion Subject: 'subject'. Assertion Audience: 'api://AzureADTokenExchange'. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
            }
            700213 => {
                "No matching federated identity record found for presented assertion subject 'subject'. Check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"
            }
            90055 => {
                "The request is throttled because the tenant has exceeded the maximum number of requests."
            }
            90033 => "A transient error has occurred. Please try again.",
            _ => "This error was asked for by a fault of azure-emulator.",
        };
        Self::new(code, text)
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self.code {
            70021..=70025 | 700024 | 700027 | 7000272 | 700211..=700213 | 7002138 | 7000215 | 7000218 => {
                StatusCode::UNAUTHORIZED
            }
            90055 => StatusCode::TOO_MANY_REQUESTS,
            90033 => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn oauth_error(&self) -> &'static str {
        match self.code {
            70003 => "unsupported_grant_type",
            28000 | 70011 | 1002012 => "invalid_scope",
            500011 => "invalid_resource",
            700016 => "unauthorized_client",
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
