//! An Entra token for any identity.

use super::{AssertionSource, ClientSecrets, EntraClient, Identity, ManagedIdentityClient};
use crate::{
    problem::Problem,
    transport::{Caller, Gates},
};
use azure_core::credentials::Secret;

/// An access token for the registry audience.
pub struct EntraToken {
    secret: Secret,
    client_id: Option<String>,
}

/// Gets Entra tokens for identities of every kind.
#[derive(Clone)]
pub struct TokenSource {
    /// The gate of our own API server, among others.
    pub gates: Gates,
    /// Assertions of service accounts.
    pub assertions: AssertionSource,
    /// Client secrets of service principals.
    pub client_secrets: ClientSecrets,
    /// Entra.
    pub entra: EntraClient,
    /// The endpoint of managed identities.
    pub managed_identities: ManagedIdentityClient,
}

// === impl TokenSource ===

impl TokenSource {
    /// A token of this identity.
    pub async fn token(&self, identity: &Identity, caller: &Caller) -> Result<EntraToken, Problem> {
        match identity {
            Identity::Workload(workload) => {
                self.entra.open(&workload.cloud, &workload.tenant_id);
                let assertion = self.assertions.assertion(workload);
                let assertion = self.gates.kubernetes(caller, assertion).await?;
                self.entra.by_assertion(workload, assertion, caller).await
            }
            Identity::ServicePrincipal(principal) => {
                self.entra.open(&principal.cloud, &principal.tenant_id);
                let secret = self.client_secrets.read(principal);
                let secret = self.gates.kubernetes(caller, secret).await?;
                self.entra.by_secret(principal, secret, caller).await
            }
            Identity::Managed(managed) => self.managed_identities.token(managed, caller).await,
        }
    }
}

// === impl EntraToken ===

impl EntraToken {
    /// A token, and the client id that it was given to, where that is known.
    pub fn new(secret: Secret, client_id: Option<String>) -> Self {
        Self { secret, client_id }
    }

    /// The client id of who asked.
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.as_deref()
    }

    /// The token itself, for the exchange form alone.
    pub fn expose(&self) -> &str {
        self.secret.secret()
    }
}
