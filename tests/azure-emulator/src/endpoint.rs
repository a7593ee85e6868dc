//! The emulated services.

use crate::{managed_identity, world::World};
use hyper::{HeaderMap, header::AUTHORIZATION};
use serde::{Deserialize, Serialize};

/// The services, with the names that faults and the request log use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Endpoint {
    /// Entra's token endpoint.
    #[serde(rename = "entra.token")]
    EntraToken,
    /// Entra's discovery documents, and all other paths of its hosts.
    #[serde(rename = "entra.discovery")]
    EntraDiscovery,
    /// A request to a registry without a credential. The answer is 401 with the address of the token endpoint.
    #[serde(rename = "acr.challenge")]
    AcrChallenge,
    /// Exchanges an Entra token for an ACR refresh token.
    #[serde(rename = "acr.exchange")]
    AcrExchange,
    /// Exchanges an ACR refresh token for an ACR access token.
    #[serde(rename = "acr.token")]
    AcrToken,
    /// A request to a registry with a credential.
    #[serde(rename = "acr.registry")]
    AcrRegistry,
    /// The token endpoint of a machine's Instance Metadata Service (IMDS).
    #[serde(rename = "imds.token")]
    ImdsToken,
    /// The token endpoint of App Service.
    #[serde(rename = "appservice.token")]
    AppServiceToken,
}

impl Endpoint {
    /// The service that answers a request.
    pub(crate) fn of(
        listener: Listener,
        world: &World,
        host: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Self> {
        if listener == Listener::ManagedIdentity {
            return managed_identity::endpoint(world, path);
        }
        if world.is_login_host(host) {
            return Some(if path.ends_with("/oauth2/v2.0/token") {
                Self::EntraToken
            } else {
                Self::EntraDiscovery
            });
        }
        world.registry(host)?;
        Some(match path {
            "/oauth2/exchange" => Self::AcrExchange,
            "/oauth2/token" => Self::AcrToken,
            _ if headers.contains_key(AUTHORIZATION) => Self::AcrRegistry,
            _ => Self::AcrChallenge,
        })
    }

    pub(crate) fn is_entra(self) -> bool {
        matches!(self, Self::EntraToken | Self::EntraDiscovery)
    }

    pub(crate) fn is_managed_identity(self) -> bool {
        matches!(self, Self::ImdsToken | Self::AppServiceToken)
    }

    /// Whether the body of a POST is a form.
    pub(crate) fn has_form(self) -> bool {
        matches!(self, Self::EntraToken | Self::AcrExchange | Self::AcrToken)
    }
}

/// The listener that accepted a request. The listener of managed identities ignores the host, because clients reach it
/// by different names.
#[derive(Clone, Copy, PartialEq)]
pub enum Listener {
    Azure,
    ManagedIdentity,
}
