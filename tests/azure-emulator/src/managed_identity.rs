//! Managed identities: the token endpoints of a machine's Instance Metadata Service (IMDS) and of App Service.

use crate::{
    dispatch::Call,
    endpoint::Endpoint,
    entra::access_token::AccessToken,
    http,
    world::{ManagedIdentity, World},
};
use axum::body::Body;
use hyper::{Method, Response, StatusCode};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
const APP_SERVICE_PATH: &str = "/msi/token";

/// The header with App Service's secret.
pub const IDENTITY_HEADER: &str = "x-identity-header";

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The token endpoint with this path. App Service's endpoint exists only if the world has an App Service.
pub fn endpoint(world: &World, path: &str) -> Option<Endpoint> {
    match path {
        IMDS_PATH => Some(Endpoint::ImdsToken),
        APP_SERVICE_PATH => world.spec.app_service.as_ref().map(|_| Endpoint::AppServiceToken),
        _ => None,
    }
}

/// Answers a token request.
pub fn token(call: &Call) -> Response<Body> {
    issue(call).unwrap_or_else(|(status, message)| error(call.endpoint, status, message))
}

/// The identity that the query names by client id or resource id, or else the system-assigned one.
pub fn requested(call: &Call) -> Option<&ManagedIdentity> {
    let mut all = call.world.spec.managed_identities.iter();
    if let Some(id) = call.form.get("client_id") {
        return all.find(|identity| identity.client_id.eq_ignore_ascii_case(id));
    }
    let resource_id = call.form.get("mi_res_id").or(call.form.get("msi_res_id"));
    if let Some(id) = resource_id {
        let has_id = |known: &String| known.eq_ignore_ascii_case(id);
        return all.find(|identity| identity.resource_id.as_ref().is_some_and(has_id));
    }
    all.find(|identity| identity.system_assigned)
}

/// An error document: IMDS sends OAuth's fields, App Service has its own format.
pub fn error(endpoint: Endpoint, status: StatusCode, message: &str) -> Response<Body> {
    let document = match endpoint {
        Endpoint::AppServiceToken => {
            json!({"statusCode": status.as_u16(), "message": message, "correlationId": Uuid::new_v4()})
        }
        _ => json!({"error": "invalid_request", "error_description": message}),
    };
    http::json(status, &document)
}

fn issue(call: &Call) -> Result<Response<Body>, (StatusCode, &'static str)> {
    check_headers(call)?;
    let bad_request = |message| (StatusCode::BAD_REQUEST, message);
    let (versions, not_found): (&[&str], _) = match call.endpoint {
        Endpoint::AppServiceToken => (
            &["2019-08-01"],
            "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId.",
        ),
        _ => (&["2018-02-01", "2019-08-01"], "Identity not found"),
    };
    let version = call.form.get("api-version").unwrap_or_default();
    if call.head.method != Method::GET || !versions.contains(&version) {
        return Err(bad_request("The method or the api-version is not supported"));
    }
    let resource = call
        .form
        .get("resource")
        .ok_or(bad_request("The query variable 'resource' is missing"))?;
    let identity = requested(call).ok_or(bad_request(not_found))?;
    let token = AccessToken::issue(call, &identity.tenant, &identity.client_id, resource, LIFETIME);
    let mut document = json!({
        "access_token": token.text,
        "client_id": identity.client_id,
        "expires_on": token.expires_on.to_string(),
        "resource": resource,
        "token_type": "Bearer",
    });
    if call.endpoint == Endpoint::ImdsToken {
        document["expires_in"] = token.expires_in.to_string().into();
    }
    Ok(http::json(StatusCode::OK, &document))
}

/// Both endpoints require a header that a proxy on behalf of a stranger would not send.
fn check_headers(call: &Call) -> Result<(), (StatusCode, &'static str)> {
    match (call.endpoint, &call.world.spec.app_service) {
        (Endpoint::AppServiceToken, Some(app_service)) => {
            if call.header(IDENTITY_HEADER) != Some(&app_service.identity_header) {
                return Err((
                    StatusCode::FORBIDDEN,
                    "The header X-IDENTITY-HEADER is not valid.",
                ));
            }
        }
        _ => {
            if call.header("metadata") != Some("true") {
                return Err((StatusCode::BAD_REQUEST, "Required metadata header not specified"));
            }
        }
    }
    Ok(())
}
