//! Gets an Entra token for an identity of any kind.

use super::{AssertionSource, ClientSecretReader, EntraClient, Identity, ManagedIdentityClient};
use crate::{
    problem::Problem,
    transport::{Caller, Gates},
};
use azure_core::credentials::Secret;

/// Gets Entra tokens for identities of every kind.
#[derive(Clone)]
pub struct TokenSource {
    /// The limits of concurrent calls, including calls to the Kubernetes API server.
    pub gates: Gates,
    /// The assertions of service accounts.
    pub assertions: AssertionSource,
    /// The credentials of service principals.
    pub client_secrets: ClientSecretReader,
    /// Entra.
    pub entra: EntraClient,
    /// The client of the managed identity endpoint.
    pub managed_identities: ManagedIdentityClient,
}

impl TokenSource {
    /// Requests a token for this identity.
    pub async fn token(&self, identity: &Identity, caller: &Caller) -> Result<EntraToken, Problem> {
        match identity {
            Identity::Workload(workload) => {
                self.entra.preconnect(&workload.cloud, &workload.tenant_id);
                let request = || self.assertions.assertion(workload);
                let assertion = self.gates.kubernetes(caller, request).await?;
                self.entra.exchange_assertion(workload, assertion, caller).await
            }
            Identity::ServicePrincipal(principal) => {
                self.entra.preconnect(&principal.cloud, &principal.tenant_id);
                let read = || self.client_secrets.read(principal);
                let credentials = self.gates.kubernetes(caller, read).await?;
                self.entra
                    .exchange_client_secret(principal, credentials, caller)
                    .await
            }
            Identity::Managed(managed) => self.managed_identities.token(managed, caller).await,
        }
    }
}

/// An access token for the registry audience.
pub struct EntraToken {
    secret: Secret,
    client_id: Option<String>,
}

impl EntraToken {
    /// A token, and the client id of the identity that it was issued to, if known.
    pub fn new(secret: Secret, client_id: Option<String>) -> Self {
        Self { secret, client_id }
    }

    /// The client id of the identity that the token was issued to, if known.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The token itself. Only the form of the registry's token exchange may contain it.
    pub fn expose(&self) -> &str {
        self.secret.secret()
    }
}
