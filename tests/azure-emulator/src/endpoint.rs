//! Which emulated service a request is for.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde::{Deserialize, Serialize};

use crate::managed_identity;
use crate::world::World;

/// The services, under the names that faults and the request log use.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Endpoint {
    /// Entra's token endpoint.
    #[serde(rename = "entra.token")]
    EntraToken,
    /// Everything else that Entra's host answers: discovery documents and keys.
    #[serde(rename = "entra.discovery")]
    EntraDiscovery,
    /// A registry asked without any credential: the 401 that says where to get one.
    #[serde(rename = "acr.challenge")]
    AcrChallenge,
    /// Entra token for ACR refresh token.
    #[serde(rename = "acr.exchange")]
    AcrExchange,
    /// ACR refresh token for ACR access token.
    #[serde(rename = "acr.token")]
    AcrToken,
    /// A registry asked with a credential.
    #[serde(rename = "acr.registry")]
    AcrRegistry,
    /// Tokens of managed identities, from a machine's Instance Metadata Service.
    #[serde(rename = "imds.token")]
    ImdsToken,
    /// Tokens of managed identities, from App Service.
    #[serde(rename = "appservice.token")]
    AppServiceToken,
}

/// How a request came. On the metadata listener the path alone decides, for clients call it by many names.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Listener {
    Azure,
    Metadata,
}

impl Endpoint {
    pub(crate) fn of(
        listener: Listener,
        world: &World,
        host: &str,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<Self> {
        if listener == Listener::Metadata {
            return managed_identity::endpoint(world, path);
        }
        if world.is_login_host(host) {
            let token = path.ends_with("/oauth2/v2.0/token");
            return Some(if token {
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

    /// Whether requests carry a form that is read before anything is answered.
    pub(crate) fn has_form(self) -> bool {
        matches!(self, Self::EntraToken | Self::AcrExchange | Self::AcrToken)
    }
}
