//! Entra's error document, and the kind of failure that it describes.

use super::aadsts::{self, Meaning};
use crate::{transport::SendError, untrusted::UntrustedText};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::{fmt, time::Duration};

/// A failed token request: either there was no response, or the response contains no token.
#[derive(Debug)]
pub struct EntraError {
    status: u16,
    document: Option<Box<Document>>,
    retry_after: Option<Duration>,
    /// Entra's time of the response.
    date: Option<Timestamp>,
    unreachable: Option<Box<SendError>>,
}

impl EntraError {
    /// There was no response.
    pub fn unreachable(error: SendError) -> Self {
        Self {
            status: 0,
            document: None,
            retry_after: None,
            date: None,
            unreachable: Some(Box::new(error)),
        }
    }

    /// The response contains no token.
    pub fn response(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        Self {
            status,
            // The document owns its strings: real descriptions contain JSON escapes, which serde cannot borrow.
            document: serde_json::from_slice(body).ok(),
            retry_after,
            date: None,
            unreachable: None,
        }
    }

    /// The same error, with the `Date` header of the response.
    pub fn at(self, date: Option<Timestamp>) -> Self {
        Self { date, ..self }
    }

    /// How far the clock that showed `time` when the request was made is ahead of Entra's clock.
    pub fn clock_ahead(&self, time: Timestamp) -> Option<SignedDuration> {
        Some(time.duration_since(self.date?))
    }

    /// The kind of failure.
    pub fn kind(&self) -> EntraErrorKind<'_> {
        if let Some(error) = &self.unreachable {
            return EntraErrorKind::Unreachable(error);
        }
        match (self.meaning(), &self.document) {
            _ if self.status == 429 => EntraErrorKind::Throttled,
            (Some(Meaning::Throttled), _) => EntraErrorKind::Throttled,
            (Some(Meaning::NoFederatedCredential), _) => EntraErrorKind::NoFederatedCredential,
            (Some(Meaning::Unavailable | Meaning::IssuerUnreachable), _) => EntraErrorKind::Unavailable,
            (Some(Meaning::OutsideValidity), _) => EntraErrorKind::ClockSkewed,
            (None, Some(_)) if self.status >= 500 || self.status == 408 => EntraErrorKind::Unavailable,
            (None, Some(d)) if d.error() == "temporarily_unavailable" => EntraErrorKind::Unavailable,
            (None, Some(d)) if !d.error().is_empty() => EntraErrorKind::Refused,
            _ => EntraErrorKind::UnexpectedBody,
        }
    }

    /// The HTTP status; 0 if there was no response.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The wait that Entra asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Entra's description, without the trace ids that differ on every call. Print it through [`UntrustedText`].
    pub fn description(&self) -> &str {
        let Some(document) = &self.document else {
            return "no description";
        };
        let text = document.error_description.as_deref().unwrap_or_default();
        let text = text.split("Trace ID:").next().unwrap_or(text);
        let text = text.lines().next().unwrap_or(text).trim().trim_end_matches('.');
        if text.is_empty() { document.error() } else { text }
    }

    /// The description without the AADSTS code at its beginning.
    pub fn text(&self) -> &str {
        let description = self.description();
        let number = description
            .strip_prefix("AADSTS")
            .and_then(|rest| rest.split_once(": "));
        number.map_or(description, |(_, text)| text)
    }

    /// The first AADSTS code of the document.
    pub fn code(&self) -> Option<u32> {
        self.document.as_ref()?.error_codes.first().copied()
    }

    /// The meaning of the first code that has one.
    fn meaning(&self) -> Option<Meaning> {
        let codes = self.document.iter().flat_map(|document| &document.error_codes);
        codes.copied().find_map(aadsts::meaning)
    }
}

impl fmt::Display for EntraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unreachable {
            Some(error) => UntrustedText::new(&error.to_string()).fmt(f),
            None => write!(
                f,
                "Entra returned HTTP {}: {}",
                self.status,
                UntrustedText::new(self.description())
            ),
        }
    }
}

impl std::error::Error for EntraError {}

/// The kinds of failures that the webhook treats differently.
pub enum EntraErrorKind<'a> {
    /// There was no response.
    Unreachable(&'a SendError),
    /// The body is not Entra's error document.
    UnexpectedBody,
    /// HTTP 429, or the tenant's own limit is exceeded.
    Throttled,
    /// Entra has a temporary failure.
    Unavailable,
    /// No federated credential matches the assertion. Entra does not know a new one for some minutes.
    NoFederatedCredential,
    /// Entra refuses the assertion because of its times.
    ClockSkewed,
    /// Entra refuses the request until somebody changes the configuration.
    Refused,
}

#[derive(Debug, Deserialize)]
struct Document {
    error: Option<String>,
    error_description: Option<String>,
    /// Entra sends numbers. Some proxies in front of Entra send strings.
    #[serde(default, deserialize_with = "codes")]
    error_codes: Vec<u32>,
}

impl Document {
    fn error(&self) -> &str {
        self.error.as_deref().unwrap_or_default()
    }
}

fn codes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let values = Option::<Vec<Value>>::deserialize(deserializer)?;
    let number = |value: Value| match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    Ok(values.into_iter().flatten().filter_map(number).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_with_escapes_is_read_and_loses_its_trace_ids() {
        let body = br#"{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record found for presented assertion subject 'system:serviceaccount:a:b'.\r\nTrace ID: 1\r\nCorrelation ID: 2","error_codes":[700213],"trace_id":"1"}"#;
        let error = EntraError::response(401, body, None);
        assert!(matches!(error.kind(), EntraErrorKind::NoFederatedCredential));
        assert_eq!(
            error.description(),
            "AADSTS700213: No matching federated identity record found for presented assertion subject 'system:serviceaccount:a:b'"
        );
        let on_one_line = br#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret. Trace ID: 1 Correlation ID: 2","error_codes":[7000215]}"#;
        assert_eq!(
            EntraError::response(401, on_one_line, None).description(),
            "AADSTS7000215: Invalid client secret"
        );
    }

    fn kind(status: u16, body: &str) -> &'static str {
        match EntraError::response(status, body.as_bytes(), None).kind() {
            EntraErrorKind::Unreachable(_) => "unreachable",
            EntraErrorKind::UnexpectedBody => "unexpected body",
            EntraErrorKind::Throttled => "throttled",
            EntraErrorKind::Unavailable => "unavailable",
            EntraErrorKind::NoFederatedCredential => "no federated credential",
            EntraErrorKind::ClockSkewed => "clock skewed",
            EntraErrorKind::Refused => "refused",
        }
    }

    #[test]
    fn each_response_has_its_kind() {
        assert_eq!(kind(429, "slow down"), "throttled");
        assert_eq!(
            kind(429, r#"{"error":"invalid_request","error_codes":[90033]}"#),
            "throttled"
        );
        assert_eq!(kind(502, "<html>"), "unexpected body");
        assert_eq!(kind(503, r#"{"error":"temporarily_unavailable"}"#), "unavailable");
        assert_eq!(
            kind(400, r#"{"error":"invalid_request","error_codes":[90061]}"#),
            "unavailable"
        );
        assert_eq!(
            kind(400, r#"{"error":"unauthorized_client","error_codes":[700016]}"#),
            "refused"
        );
        for code in [70_021, 700_211, 700_212, 700_213, 7_002_138] {
            let body = format!(r#"{{"error":"invalid_client","error_codes":[{code}]}}"#);
            assert_eq!(kind(401, &body), "no federated credential", "{code}");
        }
        for code in [50_166, 501_661, 90_024, 90_033, 90_061, 90_090] {
            let body = format!(r#"{{"error":"invalid_request","error_codes":[{code}]}}"#);
            assert_eq!(kind(400, &body), "unavailable", "{code}");
        }
        assert_eq!(
            kind(400, r#"{"error":"invalid_request","error_codes":[90055]}"#),
            "throttled"
        );
        assert_eq!(
            kind(401, r#"{"error":"invalid_client","error_codes":[700024]}"#),
            "clock skewed"
        );
    }

    #[test]
    fn a_response_with_fields_of_other_types_has_a_kind() {
        assert_eq!(
            kind(400, r#"{"error":"unauthorized_client","error_codes":["700016"]}"#),
            "refused"
        );
        assert_eq!(
            kind(
                401,
                r#"{"error":"invalid_client","error_codes":["700213",{},99999999999]}"#
            ),
            "no federated credential"
        );
        assert_eq!(
            kind(400, r#"{"error":"invalid_request","error_codes":null}"#),
            "refused"
        );
        assert_eq!(kind(400, r#"{"error":"inval"#), "unexpected body");
        assert_eq!(
            kind(
                401,
                r#"{"error":"invalid_client","error_description":null,"error_codes":[700213]}"#
            ),
            "no federated credential"
        );
    }
}
