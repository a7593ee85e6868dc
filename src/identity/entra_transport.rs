//! The HTTP transport for azure_identity's Entra credentials.
//!
//! azure_identity decodes an error's description as a borrowed string, which fails for a description with JSON escapes
//! such as Entra's line breaks, and then loses the status and the code (`handle_entra_response`). Versions 1.0.0 and
//! 1.1.0-beta.1 do so, and no issue of azure-sdk-for-rust covers it. Therefore this transport parses the responses: it
//! returns errors as [`EntraError`], and tokens in a form that azure_identity can parse whatever else the response has.

use super::entra_error::EntraError;
use crate::transport::{self, Reply};
use azure_core::{
    error::ErrorKind,
    http::{AsyncRawResponse, Body, HttpClient, Method, Request, StatusCode, headers::Headers},
};
use serde::{Deserialize, Serialize};

/// Sends azure_identity's requests with the shared HTTP client.
#[derive(Debug)]
pub struct EntraTransport(reqwest::Client);

impl EntraTransport {
    pub fn new(http: reqwest::Client) -> Self {
        Self(http)
    }
}

#[async_trait::async_trait]
impl HttpClient for EntraTransport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let (Method::Post, Body::Bytes(body)) = (request.method(), request.body()) else {
            return Err(azure_core::Error::with_message(
                ErrorKind::Other,
                "only POST with a form is expected here",
            ));
        };
        let mut send = self.0.post(request.url().clone()).body(body.clone());
        for (name, value) in request.headers().iter() {
            send = send.header(name.as_str(), value.as_str());
        }
        match transport::send(send).await {
            Ok(reply) => {
                canonical_response(&reply).map_err(|e| azure_core::Error::new(ErrorKind::Credential, e))
            }
            Err(error) => Err(azure_core::Error::new(
                ErrorKind::Io,
                EntraError::unreachable(error),
            )),
        }
    }
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
}

/// A token response in the form that azure_identity can parse.
#[derive(Serialize)]
struct CanonicalResponse<'a> {
    /// Nobody reads it, because a credential and its cache are used once. Entra v1 sends a string, which
    /// azure_identity cannot parse.
    expires_in: u32,
    access_token: &'a str,
}

fn canonical_response(reply: &Reply) -> Result<AsyncRawResponse, EntraError> {
    let error = || EntraError::response(reply.status.as_u16(), &reply.body, reply.retry_after).at(reply.date);
    if reply.status != reqwest::StatusCode::OK {
        return Err(error());
    }
    let token: TokenResponse = serde_json::from_slice(&reply.body).map_err(|_| error())?;
    let body = serde_json::to_vec(&CanonicalResponse {
        expires_in: 0,
        access_token: &token.access_token,
    })
    .map_err(|_| error())?;
    Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
}

/// Parses `data` as a response of Entra. The first byte selects the HTTP status.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let Some(reply) = Reply::fuzz(data) else { return };
    if let Err(error) = canonical_response(&reply) {
        let _ = (error.kind(), error.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status: reqwest::StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            date: None,
            body: body.into(),
        }
    }

    #[test]
    fn a_token_is_accepted_with_a_number_a_string_or_no_expiry() {
        for expires in [r#","expires_in":3599"#, r#","expires_in":"3599""#, ""] {
            let body = format!(r#"{{"token_type":"Bearer","access_token":"t"{expires},"extra":1}}"#);
            assert!(canonical_response(&reply(200, &body)).is_ok(), "{body}");
        }
    }

    #[test]
    fn an_error_quotes_neither_the_body_nor_a_token_in_it() {
        let error = canonical_response(&reply(200, r#"{"access_token":"very-secret","#)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("very-secret"));
    }
}
