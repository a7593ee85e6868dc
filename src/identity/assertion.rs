//! The assertion: a service account token from the TokenRequest API, with Entra as its audience.
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>.

use super::WorkloadIdentity;
use crate::{
    kubernetes::{self, CallError, api_problem, is_retryable, is_terminating},
    problem::{Problem, Reason},
    telemetry::{Metrics, UpstreamCall},
};
use azure_core::{error::ErrorKind, http::ClientMethodOptions};
use azure_identity::ClientAssertion;
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Client, Resource, api::PostParams, core::Request};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::fmt;

/// The shortest lifetime that the API server permits. The assertion is used once and immediately.
const EXPIRATION_SECONDS: i64 = 600;

/// Requests assertions from the API server.
#[derive(Clone)]
pub struct AssertionSource {
    client: Client,
    metrics: Metrics,
}

impl AssertionSource {
    /// A source that sends its requests with `client`.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// Requests an assertion for the identity's service account.
    pub async fn assertion(&self, identity: &WorkloadIdentity) -> Result<Assertion, Problem> {
        let WorkloadIdentity {
            namespace,
            service_account,
            ..
        } = identity;
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: identity.audiences.clone(),
                expiration_seconds: Some(EXPIRATION_SECONDS),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let what = format!("the token request for service account {namespace}/{service_account}");
        let call = async {
            let body = serde_json::to_vec(&request).map_err(kube::Error::SerdeError)?;
            let url = ServiceAccount::url_path(&(), Some(namespace));
            let request = Request::new(url)
                .create_subresource("token", service_account, &PostParams::default(), body)
                .map_err(kube::Error::BuildRequest)?;
            kubernetes::send_and_decode::<TokenRequest>(&self.client, request).await
        };
        self.metrics
            .upstream_call(UpstreamCall::TokenRequest, async {
                let reply = kubernetes::try_call(&what, call).await.map_err(|e| match e {
                    CallError::Api(s) if s.code == 404 => Problem::new(
                        Reason::ServiceAccountNotFound,
                        format!("service account {service_account:?} does not exist in namespace {namespace}: create it, or correct the name"),
                    )
                    .command(format!("kubectl create serviceaccount --namespace {namespace} {service_account}")),
                    CallError::Api(s) if !is_retryable(s.code) && !is_terminating(&s) => Problem::new(
                        Reason::TokenRequestForbidden,
                        format!("the API server refused {what}"),
                    )
                    .quoting(&s.message),
                    other => api_problem(&what, other),
                })?;
                reply
                    .status
                    .map(|s| Assertion(s.token.into()))
                    .ok_or_else(|| Problem::new(Reason::ApiServerUnavailable, format!("{what} returned no token")))
            })
            .await
    }
}

/// An assertion as a credential of azure_identity.
pub struct Assertion(SecretString);

impl Assertion {
    /// What Entra compares with a federated credential, and when the assertion was issued. The signature is not verified,
    /// because the token comes directly from the API server.
    pub fn claims(&self) -> Option<AssertionClaims> {
        crate::jwt::unverified_claims(self.0.expose_secret())
    }

    /// The issuer, which a person has to enter in Azure, and the time of the API server.
    pub fn origin(&self) -> AssertionOrigin {
        let claims = self.claims();
        let issued_at = claims.as_ref().and_then(|claims| claims.iat);
        // The issuer becomes part of a command.
        let issuer = claims
            .map(|claims| claims.iss)
            .filter(|issuer| is_shell_safe(issuer));
        AssertionOrigin {
            issuer: issuer.unwrap_or_else(|| "ISSUER".to_owned()),
            issued_at: issued_at.and_then(|second| Timestamp::from_second(second).ok()),
        }
    }
}

#[async_trait::async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let token = self.0.expose_secret();
        if token.is_empty() {
            return Err(azure_core::Error::with_message(
                ErrorKind::Credential,
                "the assertion is empty",
            ));
        }
        Ok(token.to_owned())
    }
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Assertion([REDACTED])")
    }
}

/// Who issued an assertion, and when.
#[derive(Clone, Debug)]
pub struct AssertionOrigin {
    /// The issuer, or `ISSUER` if it cannot be part of a command.
    pub issuer: String,
    /// The time by the clock of the API server.
    pub issued_at: Option<Timestamp>,
}

/// The claims of an assertion that the webhook reads.
#[derive(Debug, Deserialize)]
pub struct AssertionClaims {
    /// The issuer.
    pub iss: String,
    /// The subject: the service account.
    #[serde(default)]
    pub sub: String,
    /// The audiences: a list, or a single text.
    #[serde(default)]
    pub aud: serde_json::Value,
    /// When the assertion was issued, in seconds since 1970.
    #[serde(default)]
    pub iat: Option<i64>,
}

/// Whether the issuer is a URL without characters that are special to a shell.
fn is_shell_safe(issuer: &str) -> bool {
    issuer.len() <= 512
        && issuer
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":/.-_~%".contains(&b))
}
