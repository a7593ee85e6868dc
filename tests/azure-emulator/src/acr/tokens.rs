//! `/oauth2/exchange` and `/oauth2/token`: Entra token to ACR refresh token to ACR access token.

use std::time::Duration;

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::access::{Access, Kind};
use super::errors;
use crate::cloud;
use crate::dispatch::Call;
use crate::http::{self, Authorization};
use crate::jwt;
use crate::world::Registry;

/// The user name that says "the password is a token".
const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";
const ISSUER: &str = "Azure Container Registry";

type Claims = Map<String, Value>;

pub(super) fn exchange(call: &mut Call, registry: &Registry) -> Response<Body> {
    call.entry.tenant = call.form.get("tenant").map(str::to_owned);
    let grant = call.form.get("grant_type").unwrap_or_default();
    if !matches!(grant, "access_token" | "access_token_refresh_token") {
        return bad_request(&format!("unsupported grant_type '{grant}'"));
    }
    if call.form.get("service") != Some(&registry.host) {
        return bad_request("the service must be the registry's own host name");
    }
    let Some(claims) = entra_claims(call, registry) else {
        return errors::error(
            StatusCode::UNAUTHORIZED,
            "UNAUTHORIZED",
            "token validation failed",
        );
    };
    let tenant = call.form.get("tenant").filter(|tenant| !tenant.is_empty());
    let tenant_is_ours = tenant.is_none_or(|tenant| {
        call.world
            .tenant(tenant)
            .is_some_and(|known| known.id == registry.tenant)
    });
    let client_id = text(&claims, "appid");
    let has_a_role = registry.abac
        || registry
            .rights
            .iter()
            .any(|right| right.client_id.eq_ignore_ascii_case(client_id));
    if !tenant_is_ours || !has_a_role {
        return errors::unauthorized();
    }
    let lifetime = call.world.spec.tokens.acr_refresh_lifetime;
    let mut token = envelope(registry, &claims, "refresh_token", call.world.now(), lifetime);
    token["tenant"] = registry.tenant.clone().into();
    token["permissions"] = json!({"actions": ["read"], "notActions": null});
    http::json(
        StatusCode::OK,
        &json!({"refresh_token": call.issue(&call.state.keys.acr, &token)}),
    )
}

/// The claims of the Entra token in the form, if it is one, is valid now, and is meant for this registry.
fn entra_claims(call: &Call, registry: &Registry) -> Option<Claims> {
    let claims = call.state.keys.entra.verified(call.form.get("access_token")?)?;
    let audience = text(&claims, "aud").trim_end_matches('/');
    let own = registry
        .audiences
        .iter()
        .any(|known| known.trim_end_matches('/') == audience);
    let accepted = own || (registry.accept_arm_tokens && cloud::is_arm_audience(audience));
    (accepted && is_current(&claims, call.world.now()) && text(&claims, "tid") == registry.tenant)
        .then_some(claims)
}

pub(super) fn token(call: &mut Call, registry: &Registry) -> Response<Body> {
    if call.form.get("service") != Some(&registry.host) {
        return bad_request("the service must be the registry's own host name");
    }
    let wishes = match Access::parse_all(call.entry.scope.as_deref().unwrap_or_default()) {
        Ok(wishes) => wishes,
        Err(problem) => return bad_request(&problem),
    };
    let Some(claims) = presented_claims(call, &registry.host) else {
        return errors::unauthorized();
    };
    let granted: Vec<Access> = wishes.iter().map(|wish| grant(registry, &claims, wish)).collect();
    // Where rights are given per repository, ACR refuses here instead of handing out a token that opens nothing.
    if registry.abac
        && granted
            .iter()
            .any(|access| access.kind == Kind::Repository && access.actions.is_empty())
    {
        return errors::unauthorized();
    }
    let access: Vec<Access> = granted
        .into_iter()
        .filter(|access| !access.actions.is_empty())
        .collect();
    let lifetime = call.world.spec.tokens.acr_access_lifetime;
    let mut token = envelope(registry, &claims, "access_token", call.world.now(), lifetime);
    token["access"] = json!(access);
    http::json(
        StatusCode::OK,
        &json!({"access_token": call.issue(&call.state.keys.acr, &token)}),
    )
}

/// A refresh token gets what the rights of today grant; an access token, shown as a password, no more than it holds.
fn grant(registry: &Registry, claims: &Claims, wish: &Access) -> Access {
    let granted = wish.granted(&registry.rights, text(claims, "appid"));
    match text(claims, "grant_type") {
        "refresh_token" => granted,
        _ => granted.within(&access_of(claims)),
    }
}

/// The claims of the ACR token that the client shows, in the form or as Basic password of the zero GUID.
fn presented_claims(call: &Call, host: &str) -> Option<Claims> {
    let either = |token: &str| {
        verify(call, host, token, "refresh_token").or_else(|| verify(call, host, token, "access_token"))
    };
    match call.form.get("grant_type") {
        Some("refresh_token") => verify(call, host, call.form.get("refresh_token")?, "refresh_token"),
        Some("password") if call.form.get("username") == Some(TOKEN_USER) => {
            either(call.form.get("password")?)
        }
        Some(_) => None,
        None => match &call.authorization {
            Some(Authorization::Basic { user, password }) if user == TOKEN_USER => either(password),
            _ => None,
        },
    }
}

/// The claims of an ACR token of that grant, if this registry issued it and it is valid now.
pub(super) fn verify(call: &Call, host: &str, token: &str, grant: &str) -> Option<Claims> {
    let claims = call.state.keys.acr.verified(token)?;
    let ours = jwt::audiences(&claims) == [host] && text(&claims, "grant_type") == grant;
    (ours && is_current(&claims, call.world.now())).then_some(claims)
}

pub(super) fn access_of(claims: &Claims) -> Vec<Access> {
    claims
        .get("access")
        .and_then(|access| serde_json::from_value(access.clone()).ok())
        .unwrap_or_default()
}

/// What both ACR tokens have in common.
fn envelope(registry: &Registry, from: &Claims, grant: &str, now: i64, lifetime: Duration) -> Value {
    let expires = now + i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX / 2);
    // An access token made from an access token does not outlive it.
    let expires = match text(from, "grant_type") {
        "access_token" => expires.min(number(from, "exp")),
        _ => expires,
    };
    json!({
        "jti": http::uuid(),
        "sub": text(from, "sub"),
        "nbf": now - 900,
        "exp": expires,
        "iat": now - 900,
        "iss": ISSUER,
        "aud": registry.host,
        "version": "1.0",
        "appid": text(from, "appid"),
        "grant_type": grant,
        "roles": [],
    })
}

fn is_current(claims: &Claims, now: i64) -> bool {
    number(claims, "nbf") <= now && now < number(claims, "exp")
}

fn text<'a>(claims: &'a Claims, name: &str) -> &'a str {
    claims.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(claims: &Claims, name: &str) -> i64 {
    claims.get(name).and_then(Value::as_i64).unwrap_or_default()
}

fn bad_request(message: &str) -> Response<Body> {
    errors::error(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
}
