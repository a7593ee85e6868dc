//! Entra's access tokens for applications and managed identities.

use std::time::Duration;

use serde_json::json;

use crate::dispatch::Call;
use crate::http;

/// How the application proved to be itself; the digit is the token's `appidacr`.
#[derive(Clone, Copy)]
pub(crate) enum Proof {
    Secret,
    Assertion,
}

/// A token with what replies say about it, in seconds.
pub(crate) struct AccessToken {
    pub(crate) text: String,
    /// Since 1970.
    pub(crate) not_before: i64,
    /// Since 1970.
    pub(crate) expires_on: i64,
    pub(crate) expires_in: u64,
}

pub(crate) fn issue(
    call: &Call,
    tenant: &str,
    client_id: &str,
    resource: &str,
    proof: Proof,
    lifetime: Duration,
) -> AccessToken {
    let now = call.world.now();
    let lifetime = lifetime.as_secs();
    let issuer = format!("https://sts.windows.net/{tenant}/");
    // Five minutes in the past, as Entra's own tokens.
    let not_before = now - 300;
    let expires_on = now + i64::try_from(lifetime).unwrap_or(i64::MAX / 2);
    // A managed identity may also be an application with federated credentials: its tokens show it either way.
    let managed = call.world.managed_identity(tenant, client_id);
    let object_id = managed.map_or_else(|| object_id(client_id), |identity| identity.object_id());
    let mut claims = json!({
        "aud": resource,
        "iss": issuer,
        "iat": not_before,
        "nbf": not_before,
        "exp": expires_on,
        "aio": http::random_hex::<16>(),
        "appid": client_id,
        "appidacr": match proof { Proof::Secret => "1", Proof::Assertion => "2" },
        "idp": issuer,
        "idtyp": "app",
        "oid": object_id,
        "rh": http::random_hex::<16>(),
        "sub": object_id,
        "tid": tenant,
        "uti": http::random_hex::<11>(),
        "ver": "1.0",
    });
    if let Some(resource_id) = managed.and_then(|identity| identity.resource_id.as_ref()) {
        claims["xms_mirid"] = resource_id.clone().into();
    }
    AccessToken {
        text: call.issue(&call.state.keys.entra, &claims),
        not_before,
        expires_on,
        expires_in: lifetime.saturating_sub(1),
    }
}

/// The service principal's object id: always the same for one application, and not its client id.
pub(crate) fn object_id(client_id: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, client_id.to_lowercase().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    http::uuid_of(bytes)
}
