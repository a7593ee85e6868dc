//! Requests tokens for the node's managed identities through azure_identity: from IMDS, or from an endpoint with App
//! Service's protocol, which `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` configure.
//! Sources: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>.

use super::{
    EntraToken, ManagedIdentity, ManagedIdentityId, cause_of,
    managed_transport::{EndpointError, ManagedTransport},
};
use crate::{
    problem::{Advice, Problem, Reason},
    telemetry::{Metrics, UpstreamCall},
    transport::{Caller, Gates},
};
use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use std::sync::Arc;

/// The name of the endpoint in messages and gates. A node has one endpoint, which throttles all identities together.
const ENDPOINT: &str = "the node's managed identity endpoint";

/// Requests tokens for managed identities from the node's endpoint.
#[derive(Clone)]
pub struct ManagedIdentityClient {
    http: reqwest::Client,
    gates: Gates,
    metrics: Metrics,
}

impl ManagedIdentityClient {
    /// A client that sends its requests with `http`, which must not use a proxy.
    pub fn new(http: reqwest::Client, gates: Gates, metrics: Metrics) -> Self {
        Self { http, gates, metrics }
    }

    /// Requests an access token for this identity.
    pub async fn token(&self, identity: &ManagedIdentity, caller: &Caller) -> Result<EntraToken, Problem> {
        let scope = format!("{}/.default", identity.acr_audience);
        let exchange = async || {
            // The credential is used once, because the endpoint caches tokens itself.
            let credential = ManagedIdentityCredential::new(Some(self.options(&identity.id)))?;
            credential.get_token(&[&scope], None).await
        };
        let client_id = match &identity.id {
            ManagedIdentityId::ClientId(id) => Some(id.clone()),
            ManagedIdentityId::SystemAssigned | ManagedIdentityId::ResourceId(_) => None,
        };
        let call = || {
            self.metrics.upstream_call(UpstreamCall::ManagedIdentity, async {
                match exchange().await {
                    Ok(token) => Ok(EntraToken::new(token.token, client_id)),
                    Err(error) => Err(problem(identity, &error)),
                }
            })
        };
        self.gates.call(caller, ENDPOINT, ENDPOINT, call).await
    }

    fn options(&self, id: &ManagedIdentityId) -> ManagedIdentityCredentialOptions {
        let is_app_service = is_app_service();
        let (user_assigned_id, resource_id) = match id {
            ManagedIdentityId::SystemAssigned => (None, None),
            ManagedIdentityId::ClientId(id) => (Some(UserAssignedId::ClientId(id.clone())), None),
            // azure_identity rejects resource ids for App Service, although App Service accepts them
            // (azure-sdk-for-rust#2407).
            ManagedIdentityId::ResourceId(id) if is_app_service => (None, Some(id.clone())),
            ManagedIdentityId::ResourceId(id) => (Some(UserAssignedId::ResourceId(id.clone())), None),
        };
        let transport = ManagedTransport::new(self.http.clone(), resource_id);
        ManagedIdentityCredentialOptions {
            user_assigned_id,
            client_options: ClientOptions {
                retry: RetryOptions::none(),
                transport: Some(Transport::new(Arc::new(transport))),
                ..ClientOptions::default()
            },
        }
    }
}

/// Whether azure_identity uses App Service's protocol.
fn is_app_service() -> bool {
    ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"]
        .iter()
        .all(|name| std::env::var_os(name).is_some())
}

/// Describes the [`EndpointError`] of our transport that azure_identity's error wraps.
fn problem(identity: &ManagedIdentity, error: &azure_core::Error) -> Problem {
    if let Some(error) = cause_of::<EndpointError>(error) {
        return error.problem(identity);
    }
    Problem::new(
        Reason::ManagedIdentityRefused,
        format!("{identity} cannot be used"),
    )
    .quoting(&error.to_string())
}

impl EndpointError {
    fn problem(&self, identity: &ManagedIdentity) -> Problem {
        match self {
            EndpointError::Unreachable(cause) => Problem::new(
                Reason::ManagedIdentityUnavailable,
                format!("{ENDPOINT} could not be reached: it exists only on Azure VMs, at 169.254.169.254"),
            )
            .quoting(&cause.to_string())
            .unreachable(),
            EndpointError::UnexpectedBody(status) => Problem::new(
                Reason::ManagedIdentityUnavailable,
                format!(
                    "{ENDPOINT} returned HTTP {status} with an unexpected body: a proxy may have answered"
                ),
            ),
            EndpointError::Refused {
                status, description, ..
            } if is_refusal(*status) => Problem::new(
                Reason::ManagedIdentityRefused,
                format!("the node has no token for {identity} (HTTP {status})"),
            )
            .advice(refusal_advice(&identity.id))
            .quoting(description),
            EndpointError::Refused {
                status,
                description,
                retry_after,
            } => Problem::new(
                Reason::ManagedIdentityUnavailable,
                format!("{ENDPOINT} returned HTTP {status}"),
            )
            .quoting(description)
            .retry_after(*retry_after),
        }
    }
}

/// Whether a retry cannot succeed. The endpoint returns 404 and 410 while it is being updated, and 429 when it is
/// throttling.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && ![404, 408, 410, 429].contains(&status)
}

/// What to do about a refused identity. A node pool with several user-assigned identities has no default one.
fn refusal_advice(identity: &ManagedIdentityId) -> Advice {
    match identity {
        ManagedIdentityId::SystemAssigned => {
            Advice::new("name one of the node pool's identities in spec.auth.managedIdentity.identityId")
        }
        ManagedIdentityId::ClientId(_) | ManagedIdentityId::ResourceId(_) => {
            Advice::new("assign it to the node pool of the webhook, or correct identityId").command(
                "az vmss identity assign --resource-group NODE_RESOURCE_GROUP --name SCALE_SET --identities IDENTITY_RESOURCE_ID",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn shell_characters_of_a_description_never_reach_a_command(description in crate::untrusted::hostile::text(), status in 400u16..600) {
            let identity = ManagedIdentity {
                id: ManagedIdentityId::SystemAssigned,
                tenant_id: None,
                acr_audience: String::new(),
            };
            let error = EndpointError::Refused { status, description, retry_after: None };
            crate::untrusted::hostile::check(&error.problem(&identity).full());
        }
    }

    #[test]
    fn a_refusal_without_an_identity_id_asks_for_one() {
        let advice = |id| {
            let identity = ManagedIdentity {
                id,
                tenant_id: None,
                acr_audience: String::new(),
            };
            let error = EndpointError::Refused {
                status: 400,
                description: "Multiple user assigned identities exist".to_owned(),
                retry_after: None,
            };
            error.problem(&identity).full()
        };
        let unnamed = advice(ManagedIdentityId::SystemAssigned);
        assert!(
            unnamed.contains("name one of the node pool's identities"),
            "{unnamed}"
        );
        assert!(!unnamed.contains("az vmss identity assign"), "{unnamed}");
        let named = advice(ManagedIdentityId::ClientId("id".to_owned()));
        assert!(named.contains("az vmss identity assign"), "{named}");
    }

    #[test]
    fn a_refusal_is_distinguished_from_a_temporary_failure() {
        let identity = ManagedIdentity {
            id: ManagedIdentityId::SystemAssigned,
            tenant_id: None,
            acr_audience: String::new(),
        };
        let reason = |status| {
            let error = EndpointError::Refused {
                status,
                description: "description".to_owned(),
                retry_after: None,
            };
            error.problem(&identity).reason
        };
        for status in [400, 401, 403] {
            assert_eq!(reason(status), Reason::ManagedIdentityRefused, "{status}");
        }
        for status in [404, 410, 429, 500, 502, 503, 504] {
            assert_eq!(reason(status), Reason::ManagedIdentityUnavailable, "{status}");
        }
    }
}
