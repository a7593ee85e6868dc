//! Discovery: the documents and keys that MSAL asks for before it asks for a token.

use axum::body::Body;
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::errors::EntraError;
use super::tenant_of;
use crate::dispatch::Call;
use crate::{cloud, http};

pub(super) fn answer(call: &Call) -> Result<Response<Body>, EntraError> {
    let host = &call.host;
    let segments: Vec<&str> = call
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let document = match segments[..] {
        ["common", "discovery", "instance"] => instance(call)?,
        [_, "discovery", "keys"] | [_, "discovery", "v2.0", "keys"] => json!(call.state.keys.entra.key_set()),
        [tenant, "v2.0", ".well-known", "openid-configuration"] => {
            openid_configuration(host, &tenant_of(&call.world, tenant)?.id, "v2.0")
        }
        [tenant, ".well-known", "openid-configuration"] => {
            openid_configuration(host, &tenant_of(&call.world, tenant)?.id, "v1.0")
        }
        _ => {
            return Ok(http::with_type(
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                "not found\n",
            ));
        }
    };
    Ok(http::json(StatusCode::OK, &document))
}

/// Tells a client that the host which it is about to ask is Entra's.
fn instance(call: &Call) -> Result<Value, EntraError> {
    let mut asked = call
        .form
        .get("authorization_endpoint")
        .unwrap_or_default()
        .split('/')
        .skip(2);
    let host = asked
        .next()
        .map_or_else(|| call.host.clone(), cloud::normalized_host);
    if !call.world.is_login_host(&host) {
        return Err(EntraError::new(50049, "Unknown or invalid instance."));
    }
    let tenant = asked.next().unwrap_or("common");
    let metadata = |network: &str, cache: &str, aliases: &[&str]| json!({"preferred_network": network, "preferred_cache": cache, "aliases": aliases});
    Ok(json!({
        "tenant_discovery_endpoint": format!("https://{host}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [
            metadata("login.microsoftonline.com", "login.windows.net", &["login.microsoftonline.com", "login.windows.net", "login.microsoft.com", "sts.windows.net"]),
            metadata("login.partner.microsoftonline.cn", "login.partner.microsoftonline.cn", &["login.partner.microsoftonline.cn", "login.chinacloudapi.cn"]),
            metadata("login.microsoftonline.de", "login.microsoftonline.de", &["login.microsoftonline.de"]),
            metadata("login.microsoftonline.us", "login.microsoftonline.us", &["login.microsoftonline.us", "login.usgovcloudapi.net"]),
        ],
    }))
}

fn openid_configuration(host: &str, tenant: &str, version: &str) -> Value {
    let base = format!("https://{host}/{tenant}");
    let (issuer, path) = match version {
        "v2.0" => (format!("{base}/v2.0"), "/v2.0"),
        _ => (format!("https://sts.windows.net/{tenant}/"), ""),
    };
    json!({
        "issuer": issuer,
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "end_session_endpoint": format!("{base}/oauth2/v2.0/logout"),
        "jwks_uri": format!("{base}/discovery{path}/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "response_types_supported": ["code", "id_token", "code id_token", "id_token token"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["sub", "iss", "aud", "exp", "iat", "tid", "ver"],
        "tenant_region_scope": null,
        "cloud_instance_name": "microsoftonline.com",
    })
}
