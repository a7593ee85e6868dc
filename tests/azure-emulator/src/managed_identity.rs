//! Managed identities: the token endpoints that Azure puts beside a workload, IMDS of a machine and that of App Service.

use axum::body::Body;
use hyper::{HeaderMap, Method, Response, StatusCode};

use crate::dispatch::Call;
use crate::endpoint::Endpoint;
use crate::entra::access_token::{self, AccessToken, Proof};
use crate::http::Form;
use crate::world::{ManagedIdentity, World};
use selection::Selector;

mod app_service;
pub(crate) mod errors;
mod imds;
pub(crate) mod selection;

const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
const APP_SERVICE_PATH: &str = "/msi/token";

/// The header with App Service's secret.
pub(crate) const IDENTITY_HEADER: &str = "x-identity-header";

/// The token endpoint under this path; App Service's only where the world has an App Service.
pub(crate) fn endpoint(world: &World, path: &str) -> Option<Endpoint> {
    match path {
        IMDS_PATH => Some(Endpoint::ImdsToken),
        APP_SERVICE_PATH => world.spec.app_service.as_ref().map(|_| Endpoint::AppServiceToken),
        _ => None,
    }
}

pub(crate) fn answer(call: &mut Call, endpoint: Endpoint) -> Response<Body> {
    let world = call.world.clone();
    if call.head.method != Method::GET {
        let text = "The requested resource does not support this http method.";
        return errors::of(endpoint, StatusCode::METHOD_NOT_ALLOWED, "invalid_request", text);
    }
    match endpoint {
        Endpoint::AppServiceToken => app_service::answer(call, &world),
        _ => imds::answer(call, &world),
    }
}

/// Writes into the log what is asked for, and returns the application that a fault may name.
pub(crate) fn note(call: &mut Call, endpoint: Endpoint) -> Option<String> {
    let selector = Selector::of(endpoint, &call.form);
    let asked = |kind: fn(&Selector) -> Option<&str>| selector.as_ref().and_then(kind).map(str::to_owned);
    call.entry.resource = call.form.get("resource").map(str::to_owned);
    call.entry.object_id = asked(Selector::object_id);
    call.entry.resource_id = asked(Selector::resource_id);
    let identity = selection::find(&call.world, endpoint, selector.as_ref()).ok();
    call.entry.tenant = identity.map(|identity| identity.tenant.clone());
    asked(Selector::client_id).or_else(|| identity.map(|identity| identity.client_id.clone()))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The parameter, unless it is missing or empty.
fn given<'a>(query: &'a Form, name: &str) -> Option<&'a str> {
    query.get(name).filter(|value| !value.is_empty())
}

fn issue(call: &Call, identity: &ManagedIdentity, resource: &str) -> AccessToken {
    let lifetime = call.world.spec.tokens.managed_identity_lifetime;
    let (tenant, client_id) = (&identity.tenant, &identity.client_id);
    access_token::issue(call, tenant, client_id, resource, Proof::Assertion, lifetime)
}
