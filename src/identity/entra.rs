//! Requests Entra tokens through azure_identity, with the webhook's own transport, deadline and retries.

use super::{
    Assertion, CloudEndpoints, EntraToken, ServicePrincipal, WorkloadIdentity,
    client_secret::ClientCredentials, entra_caller::EntraCaller, entra_transport::EntraTransport,
};
use crate::{
    problem::Problem,
    telemetry::{Metrics, UpstreamCall},
    transport::{Caller, Gates, Preconnector},
};
use azure_core::{
    credentials::{Secret, TokenCredential},
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{
    ClientAssertionCredential, ClientAssertionCredentialOptions, ClientSecretCredential,
    ClientSecretCredentialOptions,
};
use secrecy::ExposeSecret;
use std::sync::Arc;

/// Requests access tokens from Entra.
#[derive(Clone)]
pub struct EntraClient {
    http: reqwest::Client,
    preconnector: Preconnector,
    gates: Gates,
    metrics: Metrics,
}

impl EntraClient {
    /// A client that sends its requests with `http`.
    pub fn new(http: reqwest::Client, preconnector: Preconnector, gates: Gates, metrics: Metrics) -> Self {
        Self {
            http,
            preconnector,
            gates,
            metrics,
        }
    }

    /// Opens a connection to this cloud's Entra, which will be called soon. The OpenID configuration needs no
    /// credential.
    pub fn preconnect(&self, cloud: &CloudEndpoints, tenant_id: &str) {
        let path = format!("/{tenant_id}/v2.0/.well-known/openid-configuration");
        self.preconnector.preconnect(&cloud.authority_host, &path);
    }

    /// Exchanges an assertion for an access token.
    pub async fn exchange_assertion(
        &self,
        identity: &WorkloadIdentity,
        assertion: Assertion,
        caller: &Caller,
    ) -> Result<EntraToken, Problem> {
        let origin = assertion.origin();
        let credential = ClientAssertionCredential::new(
            identity.tenant_id.clone(),
            identity.client_id.clone(),
            assertion,
            Some(ClientAssertionCredentialOptions {
                client_options: self.options(&identity.cloud),
            }),
        );
        self.request_token(credential, &EntraCaller::Workload { identity, origin }, caller)
            .await
    }

    /// Exchanges a client secret for an access token.
    pub async fn exchange_client_secret(
        &self,
        principal: &ServicePrincipal,
        ClientCredentials { client_id, secret }: ClientCredentials,
        caller: &Caller,
    ) -> Result<EntraToken, Problem> {
        let credential = ClientSecretCredential::new(
            &principal.tenant_id,
            client_id.clone(),
            Secret::new(secret.expose_secret().to_owned()),
            Some(ClientSecretCredentialOptions {
                client_options: self.options(&principal.cloud),
            }),
        );
        self.request_token(
            credential,
            &EntraCaller::Principal { principal, client_id },
            caller,
        )
        .await
    }

    /// Requests a token with a credential that is used once: azure_identity caches tokens by scope, not by identity.
    async fn request_token<C: TokenCredential>(
        &self,
        credential: azure_core::Result<Arc<C>>,
        entra_caller: &EntraCaller<'_>,
        caller: &Caller,
    ) -> Result<EntraToken, Problem> {
        let scope = format!("{}/.default", entra_caller.cloud().acr_audience);
        let credential = credential.map_err(|error| entra_caller.problem(&error))?;
        let call = || {
            self.metrics.upstream_call(UpstreamCall::Entra, async {
                match credential.get_token(&[&scope], None).await {
                    Ok(token) => Ok(EntraToken::new(
                        token.token,
                        Some(entra_caller.client_id().to_owned()),
                    )),
                    Err(error) => Err(entra_caller.problem(&error)),
                }
            })
        };
        let host = &entra_caller.cloud().authority_host;
        // Entra throttles each application of a tenant separately.
        let subject = format!("{host}/{}/{}", entra_caller.tenant_id(), entra_caller.client_id());
        self.gates.call(caller, host, &subject, call).await
    }

    fn options(&self, cloud: &CloudEndpoints) -> ClientOptions {
        ClientOptions {
            retry: RetryOptions::none(),
            transport: Some(Transport::new(Arc::new(EntraTransport::new(self.http.clone())))),
            cloud: Some(Arc::new(cloud.configuration())),
            ..ClientOptions::default()
        }
    }
}
