//! The HTTP transport for azure_identity's managed identity credential.
//!
//! azure_identity turns every 400 into one sentence, and retries IMDS for more than a minute even if retries are
//! disabled (`VirtualMachineManagedIdentityCredential::new` replaces the caller's retry options). Versions 1.0.0 and
//! 1.1.0-beta.1 do so, and no issue of azure-sdk-for-rust covers it. Therefore this transport parses the responses. It
//! returns failures as [`EndpointError`], with an error kind that azure_identity does not retry.

use crate::transport::{self, Reply, SendError};
use azure_core::{
    error::ErrorKind,
    http::{AsyncRawResponse, HttpClient, Method, Request, StatusCode, headers::Headers},
};
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// Sends azure_identity's requests to the node's managed identity endpoint.
#[derive(Debug)]
pub struct ManagedTransport {
    http: reqwest::Client,
    /// The Azure resource id of the identity, if it has to be added to App Service's query.
    resource_id: Option<String>,
}

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
        let reply = transport::send(send).await.map_err(EndpointError::Unreachable);
        reply
            .and_then(|reply| canonical_response(&reply))
            .map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))
    }
}

/// A failed token request: either there was no response, or the response contains no token.
#[derive(Debug)]
pub enum EndpointError {
    /// There was no response.
    Unreachable(SendError),
    /// The response has this HTTP status, and its body is neither a token nor an error document.
    UnexpectedBody(u16),
    /// The response is an error document.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The description in the document.
        description: String,
        /// The wait that the endpoint asked for.
        retry_after: Option<Duration>,
    },
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EndpointError::Unreachable(cause) => cause.fmt(f),
            EndpointError::UnexpectedBody(status) | EndpointError::Refused { status, .. } => {
                write!(f, "the managed identity endpoint returned HTTP {status}")
            }
        }
    }
}

impl std::error::Error for EndpointError {}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
}

/// A token response in the form that azure_identity can parse.
#[derive(Serialize)]
struct CanonicalResponse<'a> {
    token_type: &'static str,
    resource: &'static str,
    /// Nobody reads it, because a credential and its cache are used once. Some proxies of the endpoint send a number,
    /// which azure_identity cannot parse (azure-sdk-for-rust#2460).
    expires_on: &'static str,
    access_token: &'a str,
}

/// An error document. IMDS sends OAuth's fields, App Service sends `message`.
#[derive(Deserialize)]
struct ErrorResponse {
    #[serde(default)]
    error: Option<String>,
    #[serde(default, alias = "message")]
    error_description: Option<String>,
}

fn canonical_response(reply: &Reply) -> Result<AsyncRawResponse, EndpointError> {
    let status = reply.status.as_u16();
    let unexpected_body = |_| EndpointError::UnexpectedBody(status);
    if reply.status != reqwest::StatusCode::OK {
        let document: ErrorResponse = serde_json::from_slice(&reply.body).map_err(unexpected_body)?;
        let description = document.error_description.or(document.error);
        return Err(EndpointError::Refused {
            status,
            description: description.unwrap_or_default(),
            retry_after: reply.retry_after,
        });
    }
    let token: TokenResponse = serde_json::from_slice(&reply.body).map_err(unexpected_body)?;
    let body = serde_json::to_vec(&CanonicalResponse {
        token_type: "Bearer",
        resource: "",
        expires_on: "0",
        access_token: &token.access_token,
    })
    .map_err(unexpected_body)?;
    Ok(AsyncRawResponse::from_bytes(StatusCode::Ok, Headers::new(), body))
}

/// Parses `data` as a response of the managed identity endpoint. The first byte selects the HTTP status.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    if let Some(Err(error)) = Reply::fuzz(data).map(|reply| canonical_response(&reply)) {
        let _ = error.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(status: u16, body: &str) -> Result<(), EndpointError> {
        let reply = Reply {
            status: reqwest::StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            date: None,
            body: body.into(),
        };
        canonical_response(&reply).map(drop)
    }

    #[test]
    fn a_token_is_accepted_with_its_expiry_as_a_string_or_a_number() {
        for expires_on in [r#""1586984735""#, "1586984735"] {
            let body =
                format!(r#"{{"access_token":"t","expires_on":{expires_on},"resource":"r","extra":1}}"#);
            assert!(parse(200, &body).is_ok(), "{body}");
        }
        assert!(matches!(
            parse(200, "<html>"),
            Err(EndpointError::UnexpectedBody(200))
        ));
    }

    #[test]
    fn the_error_documents_of_imds_and_app_service_are_parsed() {
        for body in [
            r#"{"error":"invalid_request","error_description":"Identity not found"}"#,
            r#"{"statusCode":400,"message":"Identity not found","correlationId":"1"}"#,
        ] {
            let Err(EndpointError::Refused {
                status, description, ..
            }) = parse(400, body)
            else {
                panic!("{body}");
            };
            assert_eq!((status, description.as_str()), (400, "Identity not found"));
        }
        assert!(matches!(
            parse(502, "<html>"),
            Err(EndpointError::UnexpectedBody(502))
        ));
    }
}
