//! The assertion: a service account token from the TokenRequest API, for Entra's audience.
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>.

use super::WorkloadIdentity;
use crate::{
    foreign::Foreign,
    kubernetes::{self, CallError, api_problem, is_passing, is_terminating},
    problem::{Problem, Reason},
    telemetry::{Metrics, UpstreamCall},
};
use azure_core::{error::ErrorKind, http::ClientMethodOptions};
use azure_identity::ClientAssertion;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Client, Resource, api::PostParams, core::Request};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::fmt;

/// The shortest life the API server grants; the assertion is used once, at once.
const EXPIRATION_SECONDS: i64 = 600;

/// Asks the API server for assertions.
#[derive(Clone)]
pub struct AssertionSource {
    client: Client,
    metrics: Metrics,
}

/// One assertion, in the form that azure_identity takes.
pub struct Assertion(SecretString);

/// What is read of an assertion.
#[derive(Deserialize)]
struct Claims {
    iss: String,
}

// === impl AssertionSource ===

impl AssertionSource {
    /// A source of assertions.
    pub fn new(client: Client, metrics: Metrics) -> Self {
        Self { client, metrics }
    }

    /// One assertion for the identity's service account.
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
            kubernetes::decoded::<TokenRequest>(&self.client, request).await
        };
        self.metrics
            .upstream_call(UpstreamCall::TokenRequest, async {
                let reply = kubernetes::bounded(&what, call).await.map_err(|e| match e {
                    CallError::Api(s) if s.code == 404 => Problem::new(
                        Reason::ServiceAccountNotFound,
                        format!("service account {service_account:?} does not exist in namespace {namespace}; create it, or correct the name"),
                    ),
                    CallError::Api(s) if !is_passing(s.code) && !is_terminating(&s) => Problem::new(
                        Reason::TokenRequestForbidden,
                        format!("{what} was refused: {}", Foreign::new(&s.message)),
                    ),
                    other => api_problem(&what, other),
                })?;
                reply
                    .status
                    .map(|s| Assertion(s.token.into()))
                    .ok_or_else(|| Problem::new(Reason::ApiServerUnavailable, format!("{what} was answered without a token")))
            })
            .await
    }
}

/// Whether an issuer is a URL in which no shell reads anything special.
fn is_plain(issuer: &str) -> bool {
    issuer.len() <= 512
        && issuer
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b":/.-_~%".contains(&b))
}

// === impl Assertion ===

impl Assertion {
    /// Who signed it, for whoever has to enter it in Azure; unverified, as the API server has just made it.
    pub fn issuer(&self) -> String {
        let claims = crate::jwt::claims::<Claims>(self.0.expose_secret());
        let issuer = claims.map(|claims| claims.iss);
        // It goes into commands.
        issuer
            .filter(|issuer| is_plain(issuer))
            .unwrap_or_else(|| "ISSUER".to_owned())
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
