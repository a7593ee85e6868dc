//! The token endpoint of App Service, Functions and Container Apps, which a program finds by `IDENTITY_ENDPOINT`.

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::json;

use super::errors::{AAD_TOKEN_FAILED, NO_IDENTITY, app_service as error};
use super::selection::{self, NotFound, Selector};
use super::{IDENTITY_HEADER, given, header};
use crate::cloud;
use crate::dispatch::Call;
use crate::endpoint::Endpoint;
use crate::http;
use crate::world::World;

const VERSION: &str = "2019-08-01";

pub(super) fn answer(call: &Call, world: &World) -> Response<Body> {
    token(call, world).unwrap_or_else(|(status, message)| error(status, &message))
}

fn token(call: &Call, world: &World) -> Result<Response<Body>, (StatusCode, String)> {
    let bad = |message: &str| Err((StatusCode::BAD_REQUEST, message.to_owned()));
    let secret = world
        .spec
        .app_service
        .as_ref()
        .map(|known| known.identity_header.as_str());
    match header(&call.head.headers, IDENTITY_HEADER) {
        None => {
            return Err((
                StatusCode::UNAUTHORIZED,
                "The header X-IDENTITY-HEADER is missing.".to_owned(),
            ));
        }
        shown if shown != secret => {
            return Err((
                StatusCode::FORBIDDEN,
                "The header X-IDENTITY-HEADER is not valid.".to_owned(),
            ));
        }
        Some(_) => {}
    }
    match given(&call.form, "api-version") {
        Some(VERSION) => {}
        Some(other) => return bad(&format!("The api-version '{other}' is not supported.")),
        None => return bad("The parameter 'api-version' is missing."),
    }
    let Some(resource) = given(&call.form, "resource") else {
        return bad("The parameter 'resource' is missing.");
    };
    let selector = Selector::of(Endpoint::AppServiceToken, &call.form);
    let identity = match selection::find(world, Endpoint::AppServiceToken, selector.as_ref()) {
        Ok(identity) => identity,
        Err(NotFound::NamedTwice) => {
            return bad("Only one of client_id, principal_id and mi_res_id may be given.");
        }
        Err(_) if selector.is_none() => return bad(NO_IDENTITY),
        Err(_) => {
            return bad(
                "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.",
            );
        }
    };
    if !cloud::is_known_resource(resource) {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, AAD_TOKEN_FAILED.to_owned()));
    }
    let token = super::issue(call, identity, resource);
    Ok(http::json(
        StatusCode::OK,
        &json!({
            "access_token": token.text,
            "client_id": identity.client_id,
            "expires_on": token.expires_on.to_string(),
            "resource": resource,
            "token_type": "Bearer",
        }),
    ))
}
