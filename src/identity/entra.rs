//! Entra, asked through azure_identity with our own transport, deadline and retries.

use super::{
    Assertion, CloudEndpoints, EntraToken, ServicePrincipal, WorkloadIdentity, advice::Asker,
    client_secret::ClientSecret, entra_transport::EntraTransport,
};
use crate::{
    problem::Problem,
    telemetry::{Hop, Metrics},
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

/// Asks Entra for access tokens.
#[derive(Clone)]
pub struct EntraClient {
    http: reqwest::Client,
    preconnector: Preconnector,
    gates: Gates,
    metrics: Metrics,
}

// === impl EntraClient ===

// One credential an exchange: its cache knows scopes, not identities.
impl EntraClient {
    /// A client over the shared transport.
    pub fn new(http: reqwest::Client, preconnector: Preconnector, gates: Gates, metrics: Metrics) -> Self {
        Self {
            http,
            preconnector,
            gates,
            metrics,
        }
    }

    /// The Entra of this cloud is about to be asked. What tells how to, is for anybody.
    pub fn open(&self, cloud: &CloudEndpoints, tenant_id: &str) {
        let path = format!("/{tenant_id}/v2.0/.well-known/openid-configuration");
        self.preconnector.preconnect(&cloud.authority_host, &path);
    }

    /// Exchanges an assertion for an access token.
    pub async fn by_assertion(
        &self,
        identity: &WorkloadIdentity,
        assertion: Assertion,
        caller: &Caller,
    ) -> Result<EntraToken, Problem> {
        let issuer = assertion.issuer();
        let credential = ClientAssertionCredential::new(
            identity.tenant_id.clone(),
            identity.client_id.clone(),
            assertion,
            Some(ClientAssertionCredentialOptions {
                client_options: self.options(&identity.cloud),
            }),
        );
        self.ask(credential, &Asker::Workload { identity, issuer }, caller)
            .await
    }

    /// Exchanges a client secret for an access token.
    pub async fn by_secret(
        &self,
        principal: &ServicePrincipal,
        ClientSecret { client_id, secret }: ClientSecret,
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
        self.ask(credential, &Asker::Principal { principal, client_id }, caller)
            .await
    }

    async fn ask<C: TokenCredential>(
        &self,
        credential: azure_core::Result<Arc<C>>,
        asker: &Asker<'_>,
        caller: &Caller,
    ) -> Result<EntraToken, Problem> {
        let scope = format!("{}/.default", asker.cloud().acr_audience);
        let credential = credential.map_err(|error| asker.problem(&error))?;
        let call = || {
            self.metrics.hop(Hop::Entra, async {
                match credential.get_token(&[&scope], None).await {
                    Ok(token) => Ok(EntraToken::new(token.token, Some(asker.client_id().to_owned()))),
                    Err(error) => Err(asker.problem(&error)),
                }
            })
        };
        let host = &asker.cloud().authority_host;
        // What Entra throttles is an application in a tenant.
        let subject = format!("{host}/{}/{}", asker.tenant_id(), asker.client_id());
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
