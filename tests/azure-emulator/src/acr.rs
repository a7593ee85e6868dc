//! Azure Container Registry: the challenge, the token exchange, and authorized access to the real registry.

use crate::{dispatch::Call, endpoint::Endpoint, http::Authorization};
use access::Access;
use axum::body::Body;
use errors::Reason;
use hyper::{Method, Response, StatusCode, header::AUTHORIZATION};
use route::Route;

pub mod access;
pub mod errors;
mod route;
mod tokens;
pub mod upstream;

/// Answers a request to a registry.
pub async fn answer(call: &Call, body: Body) -> Response<Body> {
    let not_found = || errors::error(StatusCode::NOT_FOUND, "NOT_FOUND", "404 page not found");
    let Some(registry) = call.world.registry(&call.host) else {
        return not_found();
    };
    match (call.endpoint, &call.head.method) {
        (Endpoint::AcrExchange, &Method::POST) => tokens::exchange(call, registry),
        (Endpoint::AcrToken, &Method::POST | &Method::GET) => tokens::token(call, registry),
        (Endpoint::AcrExchange | Endpoint::AcrToken, _) => not_found(),
        _ => {
            let path = route::plain_path(call.path());
            let route = path
                .as_deref()
                .and_then(|path| Route::of(&call.head.method, path));
            let (Some(route), Some(path)) = (route, &path) else {
                return not_found();
            };
            match authorize(call, &registry.host, &route) {
                Ok(()) => call.azure.upstream.forward(call, registry, path, body).await,
                Err(reason) => errors::challenge(&registry.host, route.recommended.as_ref(), reason),
            }
        }
    }
}

/// The credential must be an ACR access token of this registry that is valid now and grants what the route requires.
fn authorize(call: &Call, host: &str, route: &Route) -> Result<(), Reason> {
    let token = match &call.authorization {
        Some(Authorization::Bearer(token)) => token,
        None if !call.head.headers.contains_key(AUTHORIZATION) => return Err(Reason::NoCredential),
        _ => return Err(Reason::InvalidToken),
    };
    let claims = tokens::verify(call, host, token, "access_token").ok_or(Reason::InvalidToken)?;
    let granted = tokens::access_of(&claims);
    let is_granted = |required: &Access| granted.iter().any(|access| access.covers(required));
    if route.required.as_ref().is_none_or(is_granted) {
        Ok(())
    } else {
        Err(Reason::InsufficientScope)
    }
}
