//! `/oauth2/exchange` and `/oauth2/token`: from an Entra token to an ACR refresh token to an ACR access token.

use super::{access::Access, errors};
use crate::{
    cloud,
    dispatch::Call,
    http::{self, Authorization},
    jwt::JsonObject,
    world::Registry,
};
use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// The user name whose password is a token.
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";
const ACCESS_TOKEN_LIFETIME: Duration = Duration::from_secs(75 * 60);
/// ACR's tokens are valid from 15 minutes ago.
const BACKDATING_SECONDS: i64 = 900;

pub fn exchange(call: &Call, registry: &Registry) -> Response<Body> {
    if call.form.get("grant_type") != Some("access_token") {
        return bad_request("unsupported grant_type");
    }
    if call.form.get("service") != Some(&registry.host) {
        return bad_request("the service must be the registry's host name");
    }
    let Some(claims) = entra_claims(call, registry) else {
        return errors::error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "token validation failed",
        );
    };
    let is_own_tenant = call.form.get("tenant").is_none_or(|tenant| {
        let tenant = call.world.tenant(tenant);
        tenant.is_some_and(|tenant| tenant.id == registry.tenant)
    });
    let client_id = text(&claims, "appid");
    let mut rights = registry.rights.iter();
    let has_right = rights.any(|right| right.client_id.eq_ignore_ascii_case(client_id));
    if !is_own_tenant || !has_right {
        return errors::unauthorized();
    }
    let expires = call.world.now() + call.world.spec.tokens.acr_refresh_lifetime.as_secs() as i64;
    let token = acr_claims(call, registry, &claims, "refresh_token", expires);
    let token = call.issue(&call.azure.keys.acr, &token);
    http::json(StatusCode::OK, &json!({"refresh_token": token}))
}

/// The claims of the Entra token in the form, if it is valid now and meant for this registry.
fn entra_claims(call: &Call, registry: &Registry) -> Option<JsonObject> {
    let claims = call.azure.keys.entra.verified(call.form.get("access_token")?)?;
    let is_accepted = text(&claims, "aud") == cloud::REGISTRY_AUDIENCE
        && text(&claims, "tid") == registry.tenant
        && is_valid_at(&claims, call.world.now());
    is_accepted.then_some(claims)
}

pub fn token(call: &Call, registry: &Registry) -> Response<Body> {
    if call.form.get("service") != Some(&registry.host) {
        return bad_request("the service must be the registry's host name");
    }
    let scopes = call.log.record.scope.as_deref().unwrap_or_default();
    let requested = match Access::parse_all(scopes) {
        Ok(requested) => requested,
        Err(problem) => return bad_request(&problem),
    };
    let Some(claims) = presented_claims(call, &registry.host) else {
        return errors::unauthorized();
    };
    let is_access_token = text(&claims, "grant_type") == "access_token";
    let mut granted: Vec<Access> = requested
        .into_iter()
        .map(|access| access.granted(&registry.rights, text(&claims, "appid")))
        .collect();
    let mut expires = call.world.now() + ACCESS_TOKEN_LIFETIME.as_secs() as i64;
    // A token made from an access token neither grants more nor lasts longer.
    if is_access_token {
        let held = access_of(&claims);
        granted = granted.into_iter().map(|access| access.within(&held)).collect();
        expires = expires.min(number(&claims, "exp"));
    }
    granted.retain(|access| !access.actions.is_empty());
    let mut token = acr_claims(call, registry, &claims, "access_token", expires);
    token["access"] = json!(granted);
    let token = call.issue(&call.azure.keys.acr, &token);
    http::json(StatusCode::OK, &json!({"access_token": token}))
}

/// The claims of the ACR token in the form, or in the password of the token user.
fn presented_claims(call: &Call, host: &str) -> Option<JsonObject> {
    let either = |token: &str| {
        verify(call, host, token, "refresh_token").or_else(|| verify(call, host, token, "access_token"))
    };
    match (call.form.get("grant_type"), &call.authorization) {
        (Some("refresh_token"), _) => verify(call, host, call.form.get("refresh_token")?, "refresh_token"),
        (Some("password"), _) if call.form.get("username") == Some(TOKEN_USER) => {
            either(call.form.get("password")?)
        }
        (None, Some(Authorization::Basic { user, password })) if user == TOKEN_USER => either(password),
        _ => None,
    }
}

/// The claims of an ACR token, if this registry issued it for this grant and it is valid now.
pub fn verify(call: &Call, host: &str, token: &str, grant: &str) -> Option<JsonObject> {
    let claims = call.azure.keys.acr.verified(token)?;
    let is_accepted = text(&claims, "aud") == host
        && text(&claims, "grant_type") == grant
        && is_valid_at(&claims, call.world.now());
    is_accepted.then_some(claims)
}

/// What an access token grants.
pub fn access_of(claims: &JsonObject) -> Vec<Access> {
    let access = claims.get("access").cloned().unwrap_or_default();
    serde_json::from_value(access).unwrap_or_default()
}

/// The claims that both ACR tokens have.
fn acr_claims(call: &Call, registry: &Registry, from: &JsonObject, grant: &str, expires: i64) -> Value {
    let begins = call.world.now() - BACKDATING_SECONDS;
    json!({
        "jti": Uuid::new_v4(),
        "sub": text(from, "sub"),
        "nbf": begins,
        "exp": expires,
        "iat": begins,
        "iss": "Azure Container Registry",
        "aud": registry.host,
        "version": "1.0",
        "appid": text(from, "appid"),
        "grant_type": grant,
    })
}

fn is_valid_at(claims: &JsonObject, now: i64) -> bool {
    number(claims, "nbf") <= now && now < number(claims, "exp")
}

fn text<'a>(claims: &'a JsonObject, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(claims: &JsonObject, name: &str) -> i64 {
    claims.get(name).and_then(Value::as_i64).unwrap_or_default()
}

fn bad_request(message: &str) -> Response<Body> {
    errors::error(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}
