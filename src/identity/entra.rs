//! Entra, asked through azure_identity with our own transport, deadline and retries.

use super::{
    Assertion, WorkloadIdentity,
    entra_error::{EntraError, Fault},
    entra_transport::EntraTransport,
};
use crate::{
    problem::{Problem, Reason},
    telemetry::{Hop, Metrics},
};
use azure_core::{
    credentials::{Secret, TokenCredential},
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{ClientAssertionCredential, ClientAssertionCredentialOptions};
use std::{error::Error, sync::Arc};

/// An access token for the registry audience.
pub struct EntraToken(Secret);

/// Asks Entra for access tokens.
#[derive(Clone)]
pub struct EntraClient {
    http: reqwest::Client,
    metrics: Metrics,
}

// === impl EntraClient ===

impl EntraClient {
    /// A client over the shared transport.
    pub fn new(http: reqwest::Client, metrics: Metrics) -> Self {
        Self { http, metrics }
    }

    /// Exchanges an assertion for an access token.
    pub async fn token(
        &self,
        identity: &WorkloadIdentity,
        assertion: Assertion,
    ) -> Result<EntraToken, Problem> {
        let exchange = async {
            // One credential an exchange: its cache knows scopes, not identities.
            let credential = ClientAssertionCredential::new(
                identity.tenant_id.clone(),
                identity.client_id.clone(),
                assertion,
                Some(ClientAssertionCredentialOptions {
                    client_options: self.options(identity),
                }),
            )?;
            let scope = format!("{}/.default", identity.cloud.acr_audience);
            credential.get_token(&[&scope], None).await
        };
        self.metrics
            .hop(Hop::Entra, async {
                match exchange.await {
                    Ok(token) => Ok(EntraToken(token.token)),
                    Err(error) => Err(problem(identity, &error)),
                }
            })
            .await
    }

    fn options(&self, identity: &WorkloadIdentity) -> ClientOptions {
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(EntraTransport::new(self.http.clone())))),
            cloud: Some(Arc::new(identity.cloud.configuration())),
            ..ClientOptions::default()
        }
    }
}

// === impl EntraToken ===

impl EntraToken {
    /// The token itself, for the exchange form alone.
    pub fn expose(&self) -> &str {
        self.0.secret()
    }
}

/// Finds our transport's typed error under azure_identity's, and puts it in words.
fn problem(identity: &WorkloadIdentity, error: &azure_core::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(entra) = current.downcast_ref::<EntraError>() {
            return entra.problem(identity);
        }
        cause = current.source();
    }
    // Only a malformed tenant or client id is refused before anything is sent.
    Problem::new(
        Reason::EntraRefused,
        format!(
            "client id {:?} and tenant id {:?} of service account {}/{} cannot be used: {error}",
            identity.client_id, identity.tenant_id, identity.namespace, identity.service_account
        ),
    )
}

impl EntraError {
    fn problem(&self, identity: &WorkloadIdentity) -> Problem {
        let host = &identity.cloud.authority_host;
        let who = format!(
            "the identity of service account {}/{} (client id {}, tenant {})",
            identity.namespace, identity.service_account, identity.client_id, identity.tenant_id
        );
        let (reason, message) = match self.fault() {
            Fault::Unreachable(cause) => (
                Reason::EntraUnavailable,
                format!("{host} was not reached: {cause}"),
            ),
            Fault::Unreadable => (
                Reason::EntraUnavailable,
                format!(
                    "{host} answered {} with a body that is not Entra's",
                    self.status()
                ),
            ),
            Fault::Throttled => (
                Reason::EntraThrottled,
                format!("{host} asks us to slow down ({})", self.words()),
            ),
            Fault::Down => (
                Reason::EntraUnavailable,
                format!("{host} answered {}: {}", self.status(), self.words()),
            ),
            Fault::NoFederatedCredential => (
                Reason::FederatedCredentialNotFound,
                format!(
                    "Entra knows no federated credential for {who}: {}; add one with subject {:?} and the cluster's issuer \
                     (a new one takes a few minutes to spread)",
                    self.words(),
                    identity.subject()
                ),
            ),
            Fault::Refused => (
                Reason::EntraRefused,
                format!("Entra refused {who}: {}{}", self.words(), self.hint()),
            ),
        };
        Problem::new(reason, message).retry_after(self.retry_after())
    }
}
