//! Entra's error document, and what each AADSTS code asks for.
//! Source: <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>.

use crate::foreign::Foreign;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::{fmt, time::Duration};

/// What Entra, or the way to it, answered in place of a token.
#[derive(Debug)]
pub struct EntraError {
    status: u16,
    document: Option<Document>,
    retry_after: Option<Duration>,
    unreachable: Option<String>,
}

/// The classes of answers that we treat differently.
pub enum Fault<'a> {
    /// No answer.
    Unreachable(&'a str),
    /// An answer that is not Entra's document.
    Unreadable,
    /// 429, or the tenant's own limit.
    Throttled,
    /// Entra's own trouble.
    Down,
    /// No federated credential matches; a fresh one is unknown for minutes.
    NoFederatedCredential,
    /// A refusal that time does not mend.
    Refused,
}

#[derive(Debug, Deserialize)]
struct Document {
    error: Option<String>,
    error_description: Option<String>,
    /// Numbers from Entra itself; some that stand before it quote them.
    #[serde(default, deserialize_with = "codes")]
    error_codes: Vec<u32>,
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

// === impl EntraError ===

impl EntraError {
    /// There was no answer.
    pub fn unreachable(cause: String) -> Self {
        Self {
            status: 0,
            document: None,
            retry_after: None,
            unreachable: Some(cause),
        }
    }

    /// An answer other than a token.
    pub fn answered(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        Self {
            status,
            // Owned strings: real descriptions hold JSON escapes, which cannot be borrowed.
            document: serde_json::from_slice(body).ok(),
            retry_after,
            unreachable: None,
        }
    }

    /// The class of the answer.
    pub fn fault(&self) -> Fault<'_> {
        if let Some(cause) = &self.unreachable {
            return Fault::Unreachable(cause);
        }
        if self.status == 429 || self.has(&[90055]) {
            return Fault::Throttled;
        }
        if self.has(&[70021, 70025, 700211, 700213]) {
            return Fault::NoFederatedCredential;
        }
        match &self.document {
            // 90033: a transient error has occurred. 90061: the issuer's keys were not reached.
            Some(_) if self.status >= 500 || self.status == 408 || self.has(&[90033, 90061]) => Fault::Down,
            Some(d) if d.error() == "temporarily_unavailable" => Fault::Down,
            Some(d) if !d.error().is_empty() => Fault::Refused,
            _ => Fault::Unreadable,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The wait that Entra asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Entra's own words, without the trace ids that differ on every call; to be printed as what they are.
    pub fn words(&self) -> &str {
        let Some(document) = &self.document else {
            return "no description";
        };
        let text = document.error_description.as_deref().unwrap_or_default();
        let text = text.split("Trace ID:").next().unwrap_or(text);
        let text = text.lines().next().unwrap_or(text).trim().trim_end_matches('.');
        if text.is_empty() { document.error() } else { text }
    }

    /// The first of Entra's codes.
    pub fn code(&self) -> Option<u32> {
        self.document.as_ref()?.codes().first().copied()
    }

    fn has(&self, codes: &[u32]) -> bool {
        self.document
            .as_ref()
            .is_some_and(|d| d.codes().iter().any(|c| codes.contains(c)))
    }
}

// === impl Document ===

impl Document {
    fn error(&self) -> &str {
        self.error.as_deref().unwrap_or_default()
    }

    fn codes(&self) -> &[u32] {
        &self.error_codes
    }
}

impl fmt::Display for EntraError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unreachable {
            Some(cause) => Foreign::new(cause).fmt(f),
            None => write!(
                f,
                "Entra answered {}: {}",
                self.status,
                Foreign::new(self.words())
            ),
        }
    }
}

impl std::error::Error for EntraError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_with_escapes_are_read_and_lose_their_trace_ids() {
        let body = br#"{"error":"invalid_client","error_description":"AADSTS700213: No matching federated identity record found for presented assertion subject 'system:serviceaccount:a:b'.\r\nTrace ID: 1\r\nCorrelation ID: 2","error_codes":[700213],"trace_id":"1"}"#;
        let error = EntraError::answered(401, body, None);
        assert!(matches!(error.fault(), Fault::NoFederatedCredential));
        assert_eq!(
            error.words(),
            "AADSTS700213: No matching federated identity record found for presented assertion subject 'system:serviceaccount:a:b'"
        );
        let blanks = br#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret. Trace ID: 1 Correlation ID: 2","error_codes":[7000215]}"#;
        assert_eq!(
            EntraError::answered(401, blanks, None).words(),
            "AADSTS7000215: Invalid client secret"
        );
    }

    #[test]
    fn each_answer_falls_into_its_class() {
        let fault = |status, body: &str| match EntraError::answered(status, body.as_bytes(), None).fault() {
            Fault::Unreachable(_) => "unreachable",
            Fault::Unreadable => "unreadable",
            Fault::Throttled => "throttled",
            Fault::Down => "down",
            Fault::NoFederatedCredential => "no federated credential",
            Fault::Refused => "refused",
        };
        assert_eq!(fault(429, "slow down"), "throttled");
        assert_eq!(fault(502, "<html>"), "unreadable");
        assert_eq!(fault(503, r#"{"error":"temporarily_unavailable"}"#), "down");
        assert_eq!(
            fault(400, r#"{"error":"invalid_request","error_codes":[90061]}"#),
            "down"
        );
        assert_eq!(
            fault(400, r#"{"error":"unauthorized_client","error_codes":[700016]}"#),
            "refused"
        );
        assert_eq!(
            fault(401, r#"{"error":"invalid_client","error_codes":[7002138]}"#),
            "refused"
        );
        assert_eq!(
            fault(400, r#"{"error":"unauthorized_client","error_codes":["700016"]}"#),
            "refused"
        );
        assert_eq!(
            fault(
                401,
                r#"{"error":"invalid_client","error_codes":["700213",{},99999999999]}"#
            ),
            "no federated credential"
        );
        assert_eq!(
            fault(400, r#"{"error":"invalid_request","error_codes":null}"#),
            "refused"
        );
        assert_eq!(fault(400, r#"{"error":"inval"#), "unreadable");
        assert_eq!(
            fault(
                401,
                r#"{"error":"invalid_client","error_description":null,"error_codes":[700213]}"#
            ),
            "no federated credential"
        );
    }
}
