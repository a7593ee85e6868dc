//! Entra ID: the token endpoint for client assertions and client secrets, and the discovery documents.

use crate::{
    cloud,
    dispatch::Call,
    http,
    world::{Application, Tenant, World},
};
use access_token::AccessToken;
use axum::body::Body;
use errors::EntraError;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

pub mod access_token;
mod assertion;
pub mod errors;

const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Entra's lifetimes vary between 60 and 90 minutes. The emulator's are constant.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Scopes that do not name a resource. MSAL adds them.
const OPENID_SCOPES: [&str; 3] = ["openid", "offline_access", "profile"];

/// Answers a token request.
pub fn token(call: &mut Call) -> Response<Body> {
    issue(call).unwrap_or_else(|error| error.response(call.world.now()))
}

/// Answers a request for one of the two documents that MSAL reads.
pub fn discovery(call: &Call) -> Response<Body> {
    let segments: Vec<&str> = call.path().trim_matches('/').split('/').collect();
    let document = match segments[..] {
        ["common", "discovery", "instance"] => instance_discovery(&call.host),
        [tenant, "v2.0", ".well-known", "openid-configuration"] => match find_tenant(&call.world, tenant) {
            Ok(tenant) => openid_configuration(&call.host, &tenant.id),
            Err(error) => return error.response(call.world.now()),
        },
        _ => return http::text(StatusCode::NOT_FOUND, "not found\n"),
    };
    http::json(StatusCode::OK, &document)
}

/// The aliases of a login host. The emulator's hosts have none.
fn instance_discovery(host: &str) -> Value {
    json!({
        "tenant_discovery_endpoint": format!("https://{host}/common/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    })
}

fn openid_configuration(host: &str, tenant: &str) -> Value {
    let base = format!("https://{host}/{tenant}");
    json!({
        "issuer": format!("{base}/v2.0"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
    })
}

fn issue(call: &mut Call) -> Result<Response<Body>, EntraError> {
    let grant = required(call, "grant_type")?;
    if grant != "client_credentials" {
        let text = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(EntraError::new(70003, text));
    }
    let world = call.world.clone();
    let client_id = required(call, "client_id")?.to_owned();
    let tenant = call.path().split('/').nth(1).unwrap_or_default().to_owned();
    let tenant = find_tenant(&world, &tenant)?;
    let application = tenant.application(&client_id).ok_or_else(|| {
        let text = format!(
            "Application with identifier '{client_id}' was not found in the directory '{}'.",
            tenant.id
        );
        EntraError::new(700016, text)
    })?;
    authenticate(call, application)?;
    let resource = resource(required(call, "scope")?)?;
    let token = AccessToken::issue(call, &tenant.id, &application.client_id, resource, LIFETIME);
    Ok(http::json(
        StatusCode::OK,
        &json!({
            "token_type": "Bearer",
            "expires_in": token.expires_in,
            "ext_expires_in": token.expires_in,
            "access_token": token.text,
        }),
    ))
}

fn find_tenant<'a>(world: &'a World, id: &str) -> Result<&'a Tenant, EntraError> {
    let missing = || EntraError::new(90002, format!("Tenant '{id}' not found."));
    world.tenant(id).ok_or_else(missing)
}

fn required<'a>(call: &'a Call, field: &str) -> Result<&'a str, EntraError> {
    call.form.get(field).ok_or_else(|| {
        let text = format!("The request body must contain the following parameter: '{field}'.");
        EntraError::new(900144, text)
    })
}

fn authenticate(call: &mut Call, application: &Application) -> Result<(), EntraError> {
    if call.form.get("client_assertion_type") == Some(JWT_BEARER) {
        let assertion = required(call, "client_assertion")?.to_owned();
        return assertion::verify(call, application, &assertion);
    }
    let secret = required(call, "client_secret")?;
    if application.secrets.iter().any(|known| known == secret) {
        return Ok(());
    }
    Err(EntraError::new(7000215, "Invalid client secret provided."))
}

/// The resource whose `/.default` scope is requested.
fn resource(scope: &str) -> Result<&str, EntraError> {
    let mut scopes = scope
        .split_whitespace()
        .filter(|scope| !OPENID_SCOPES.contains(scope));
    let (Some(resource), None) = (
        scopes.next().and_then(|scope| scope.strip_suffix("/.default")),
        scopes.next(),
    ) else {
        let text = format!("The provided value for scope {scope} is not valid.");
        return Err(EntraError::new(1002012, text));
    };
    if resource == cloud::REGISTRY_AUDIENCE {
        return Ok(resource);
    }
    let text = format!("The resource principal named {resource} was not found in the tenant.");
    Err(EntraError::new(500011, text))
}
