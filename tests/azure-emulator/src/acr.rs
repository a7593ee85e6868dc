//! Azure Container Registry: challenge, token exchange, and authorised passage to the real registry behind.

use axum::body::Body;
use hyper::{Method, Response, StatusCode};

use crate::dispatch::Call;
use crate::endpoint::Endpoint;
use crate::http::Authorization;
use crate::world::Registry;
use access::Access;
use errors::Reason;
use route::Route;

pub(crate) mod access;
pub(crate) mod errors;
mod listing;
mod route;
mod tokens;
pub(crate) mod upstream;

pub(crate) async fn answer(call: &mut Call, endpoint: Endpoint, body: Body) -> Response<Body> {
    let world = call.world.clone();
    // `Endpoint::of` saw the registry in this same world.
    let Some(registry) = world.registry(&call.host) else {
        return errors::error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "no such registry");
    };
    match (endpoint, &call.head.method) {
        (Endpoint::AcrExchange, &Method::POST) => tokens::exchange(call, registry),
        (Endpoint::AcrExchange, _) => errors::error(StatusCode::NOT_FOUND, "NOT_FOUND", "404 page not found"),
        (Endpoint::AcrToken, &Method::POST | &Method::GET) => tokens::token(call, registry),
        (Endpoint::AcrToken, _) => errors::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "UNSUPPORTED",
            "the method is not allowed",
        ),
        _ => resource(call, registry, body).await,
    }
}

/// Everything that takes an ACR access token.
async fn resource(call: &Call, registry: &Registry, body: Body) -> Response<Body> {
    let path = route::plain_path(call.path());
    let route = path
        .as_deref()
        .and_then(|path| Route::of(&call.head.method, path, &call.form));
    let (Some(route), Some(path)) = (route, &path) else {
        return errors::error(StatusCode::NOT_FOUND, "NOT_FOUND", "404 page not found");
    };
    if let Err(reason) = authorise(call, &registry.host, &route.needed) {
        return errors::challenge(&registry.host, &route.wished, reason);
    }
    match route.listing {
        Some(listing) => listing::answer(call, registry, listing).await,
        None => call.state.upstream.pass(call, registry, path, body).await,
    }
}

/// The token must be an ACR access token of this very registry, valid now, and hold all that is needed.
fn authorise(call: &Call, host: &str, needed: &[Access]) -> Result<(), Reason> {
    let token = match &call.authorization {
        Some(Authorization::Bearer(token)) => token,
        Some(Authorization::Basic { .. }) => return Err(Reason::InvalidToken),
        None if call.head.headers.contains_key(hyper::header::AUTHORIZATION) => {
            return Err(Reason::InvalidToken);
        }
        None => return Err(Reason::NoCredential),
    };
    let claims = tokens::verify(call, host, token, "access_token").ok_or(Reason::InvalidToken)?;
    let held = tokens::access_of(&claims);
    let missing = needed
        .iter()
        .any(|need| !held.iter().any(|have| have.covers(need)));
    if missing {
        Err(Reason::InsufficientScope)
    } else {
        Ok(())
    }
}
