//! The HTTP transport under azure_identity's managed identity credential.
//!
//! The crate maps every 400 to one sentence, cannot read `expires_on` as a number, and repeats its
//! tries for over a minute at IMDS whatever it is told; so answers are read here, and whatever is
//! no token leaves as a typed error of a kind that it does not retry.

use crate::transport::{self, Reply};
use azure_core::{
    error::ErrorKind,
    http::{AsyncRawResponse, HttpClient, Method, Request, StatusCode, headers::Headers},
};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Sends azure_identity's requests to the machine's endpoint.
#[derive(Debug)]
pub struct ManagedTransport {
    http: reqwest::Client,
    /// To be named in App Service's way.
    resource_id: Option<String>,
}

/// What the endpoint answered in place of a token.
#[derive(Debug)]
pub enum Answer {
    /// Nothing.
    None(String),
    /// What is not its own.
    Unreadable(u16),
    /// Its error document.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its own words.
        words: String,
        /// The wait that it asked for.
        retry_after: Option<Duration>,
    },
}

#[derive(Deserialize)]
struct TokenReply {
    access_token: String,
    expires_on: Epoch,
}

/// A string in every published sample, and a number from some proxies of the endpoint.
#[derive(Deserialize)]
#[serde(untagged)]
enum Epoch {
    Number(i64),
    Text(String),
}

#[derive(Serialize)]
struct CanonicalReply<'a> {
    token_type: &'static str,
    resource: &'static str,
    expires_on: String,
    access_token: &'a str,
}

/// IMDS answers in OAuth's form, App Service in one of its own.
#[derive(Deserialize)]
struct ErrorReply {
    #[serde(default)]
    error: Option<String>,
    #[serde(default, alias = "message")]
    error_description: Option<String>,
}

// === impl ManagedTransport ===

impl ManagedTransport {
    pub fn new(http: reqwest::Client, resource_id: Option<String>) -> Self {
        Self { http, resource_id }
    }
}

#[async_trait::async_trait]
impl HttpClient for ManagedTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        if request.method() != Method::Get {
            let why = "only GET is expected here";
            return Err(azure_core::Error::with_message(ErrorKind::Other, why));
        }
        let mut url = request.url().clone();
        if let Some(id) = &self.resource_id {
            url.query_pairs_mut().append_pair("mi_res_id", id);
        }
        let mut send = self.http.get(url);
        for (name, value) in request.headers().iter() {
            send = send.header(name.as_str(), value.as_str());
        }
        let reply = transport::send(send).await.map_err(Answer::None);
        reply
            .and_then(|reply| canonical(&reply))
            .map_err(|answer| azure_core::Error::new(ErrorKind::Credential, answer))
    }
}

fn canonical(reply: &Reply) -> Result<AsyncRawResponse, Answer> {
    let status = reply.status.as_u16();
    if reply.status != reqwest::StatusCode::OK {
        let document: ErrorReply =
            serde_json::from_slice(&reply.body).map_err(|_| Answer::Unreadable(status))?;
        let words = document.error_description.or(document.error);
        return Err(Answer::Refused {
            status,
            words: words.unwrap_or_default(),
            retry_after: reply.retry_after,
        });
    }
    let token: TokenReply = serde_json::from_slice(&reply.body).map_err(|_| Answer::Unreadable(status))?;
    let body = serde_json::to_vec(&CanonicalReply {
        token_type: "Bearer",
        resource: "",
        expires_on: token.expires_on.to_string(),
        access_token: &token.access_token,
    })
    .map_err(|_| Answer::Unreadable(status))?;
    Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
}

/// A reply of the machine's endpoint, of a status that the first byte chooses.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    if let Some(Err(answer)) = Reply::fuzz(data).map(|reply| canonical(&reply)) {
        let _ = answer.to_string();
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Epoch::Number(seconds) => seconds.fmt(f),
            Epoch::Text(seconds) => seconds.fmt(f),
        }
    }
}

// === impl Answer ===

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::None(cause) => f.write_str(cause),
            Answer::Unreadable(status) | Answer::Refused { status, .. } => {
                write!(f, "the endpoint for managed identities answered {status}")
            }
        }
    }
}

impl std::error::Error for Answer {}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Result<(), Answer> {
        let reply = Reply {
            status: reqwest::StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            date: None,
            body: body.into(),
        };
        canonical(&reply).map(drop)
    }

    #[test]
    fn a_token_is_taken_with_its_expiry_as_a_string_or_a_number() {
        for expires_on in [r#""1586984735""#, "1586984735"] {
            let body =
                format!(r#"{{"access_token":"t","expires_on":{expires_on},"resource":"r","extra":1}}"#);
            assert!(answer(200, &body).is_ok(), "{body}");
        }
        assert!(matches!(answer(200, "<html>"), Err(Answer::Unreadable(200))));
    }

    #[test]
    fn the_error_documents_of_both_forms_are_read() {
        for body in [
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
            r#"{"statusCode":400,"message":"Identity not found","correlationId":"1"}"#,
        ] {
            let Err(Answer::Refused { status, words, .. }) = answer(400, body) else {
                panic!("{body}");
            };
            assert_eq!((status, words.as_str()), (400, "Identity not found"));
        }
        assert!(matches!(answer(502, "<html>"), Err(Answer::Unreadable(502))));
    }
}
