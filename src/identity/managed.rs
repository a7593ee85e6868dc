//! The webhook's own managed identity, asked through azure_identity: at IMDS, or at the endpoint
//! of `IDENTITY_ENDPOINT` and `IDENTITY_HEADER` in the form of App Service.
//! Sources: <https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token>,
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>.

use super::{
    EntraToken, ManagedIdentity, ManagedIdentityId,
    managed_transport::{Answer, ManagedTransport},
};
use crate::{
    foreign::Foreign,
    problem::{Problem, Reason},
    telemetry::{Metrics, UpstreamCall},
    transport::{Caller, Gates},
};
use azure_core::{
    credentials::TokenCredential,
    http::{ClientOptions, RetryOptions, Transport},
};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId};
use std::{error::Error, sync::Arc};

/// The machine has one, whatever its address; it throttles as a whole.
const ENDPOINT: &str = "the machine's endpoint for managed identities";

/// Asks the machine for tokens of its managed identities.
#[derive(Clone)]
pub struct ManagedIdentityClient {
    http: reqwest::Client,
    gates: Gates,
    metrics: Metrics,
}

// === impl ManagedIdentityClient ===

impl ManagedIdentityClient {
    /// A client over the transport for the machine's own endpoint.
    pub fn new(http: reqwest::Client, gates: Gates, metrics: Metrics) -> Self {
        Self { http, gates, metrics }
    }

    /// An access token of this identity.
    pub async fn token(&self, identity: &ManagedIdentity, caller: &Caller) -> Result<EntraToken, Problem> {
        let scope = format!("{}/.default", identity.acr_audience);
        let exchange = async || {
            // One credential an exchange, as at Entra; the machine keeps tokens itself.
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
        let app_service = in_app_service();
        let (user_assigned_id, resource_id) = match id {
            ManagedIdentityId::SystemAssigned => (None, None),
            ManagedIdentityId::ClientId(id) => (Some(UserAssignedId::ClientId(id.clone())), None),
            // azure_identity refuses resource ids for App Service, which takes them (azure-sdk-for-rust#2407).
            ManagedIdentityId::ResourceId(id) if app_service => (None, Some(id.clone())),
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

/// As azure_identity chooses.
fn in_app_service() -> bool {
    ["IDENTITY_ENDPOINT", "IDENTITY_HEADER"]
        .iter()
        .all(|name| std::env::var_os(name).is_some())
}

/// Finds our transport's answer under azure_identity's error, and puts it in words.
fn problem(identity: &ManagedIdentity, error: &azure_core::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(answer) = current.downcast_ref::<Answer>() {
            return answer.problem(identity);
        }
        cause = current.source();
    }
    Problem::new(
        Reason::ManagedIdentityRefused,
        format!("{identity} cannot be used: {}", Foreign::new(&error.to_string())),
    )
}

impl Answer {
    fn problem(&self, identity: &ManagedIdentity) -> Problem {
        let said = |words: &str| match words {
            "" => String::new(),
            words => format!(" ({})", Foreign::inert(words)),
        };
        match self {
            Answer::None(cause) => Problem::new(
                Reason::ManagedIdentityUnavailable,
                format!(
                    "the machine's endpoint for managed identities was not reached: {}; it is there on Azure's machines \
                     alone, and only where the webhook's Pods may reach 169.254.169.254 or IDENTITY_ENDPOINT",
                    Foreign::new(cause)
                ),
            )
            .unreachable(),
            Answer::Unreadable(status) => Problem::new(
                Reason::ManagedIdentityUnavailable,
                format!(
                    "the machine's endpoint for managed identities answered {status} with a body that is not its own"
                ),
            ),
            Answer::Refused { status, words, .. } if is_refusal(*status) => Problem::new(
                Reason::ManagedIdentityRefused,
                format!(
                    "the machine has no token for {identity}: {status}{}; assign it to the machines (node pools) that run \
                     the webhook: az vmss identity assign, or correct spec.auth.managedIdentity.identityId",
                    said(words)
                ),
            ),
            Answer::Refused {
                status,
                words,
                retry_after,
            } => Problem::new(
                Reason::ManagedIdentityUnavailable,
                format!(
                    "the machine's endpoint for managed identities answered {status}{}",
                    said(words)
                ),
            )
            .retry_after(*retry_after),
        }
    }
}

/// 404 and 410 are said while the endpoint is being updated, and 429 when it is asked too often.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && ![404, 408, 410, 429].contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_word_of_the_machines_is_in_a_command(words in crate::foreign::hostile::text(), status in 400u16..600) {
            let identity = ManagedIdentity {
                id: ManagedIdentityId::SystemAssigned,
                tenant_id: None,
                acr_audience: String::new(),
            };
            let answer = Answer::Refused { status, words, retry_after: None };
            crate::foreign::hostile::check(&answer.problem(&identity).message);
        }
    }

    #[test]
    fn what_the_machine_refuses_is_told_apart_from_what_passes() {
        let identity = ManagedIdentity {
            id: ManagedIdentityId::SystemAssigned,
            tenant_id: None,
            acr_audience: String::new(),
        };
        let reason = |status| {
            let answer = Answer::Refused {
                status,
                words: "words".to_owned(),
                retry_after: None,
            };
            answer.problem(&identity).reason
        };
        for status in [400, 401, 403] {
            assert_eq!(reason(status), Reason::ManagedIdentityRefused, "{status}");
        }
        for status in [404, 410, 429, 500, 502, 503, 504] {
            assert_eq!(reason(status), Reason::ManagedIdentityUnavailable, "{status}");
        }
    }
}
