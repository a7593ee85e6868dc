//! Entra's access tokens for applications and managed identities.

use crate::dispatch::Call;
use ring::digest::{SHA256, digest};
use serde_json::json;
use std::time::Duration;
use uuid::{Builder, Uuid};

/// Entra's tokens are valid from five minutes ago.
const BACKDATING_SECONDS: i64 = 300;

/// A token, with what responses report about it.
pub struct AccessToken {
    pub text: String,
    /// In seconds since 1970.
    pub expires_on: i64,
    pub expires_in: u64,
}

impl AccessToken {
    pub fn issue(call: &Call, tenant: &str, client_id: &str, resource: &str, lifetime: Duration) -> Self {
        let now = call.world.now();
        let expires_on = now + lifetime.as_secs() as i64;
        let object_id = object_id(client_id);
        let claims = json!({
            "aud": resource,
            "iss": format!("https://sts.windows.net/{tenant}/"),
            "iat": now - BACKDATING_SECONDS,
            "nbf": now - BACKDATING_SECONDS,
            "exp": expires_on,
            "appid": client_id,
            "idtyp": "app",
            "oid": object_id,
            "sub": object_id,
            "tid": tenant,
            "uti": Uuid::new_v4(),
            "ver": "1.0",
        });
        Self {
            text: call.issue(&call.azure.keys.entra, &claims),
            expires_on,
            expires_in: lifetime.as_secs() - 1,
        }
    }
}

/// The object id of the service principal: derived from the client id, but different.
fn object_id(client_id: &str) -> Uuid {
    let hash = digest(&SHA256, client_id.to_lowercase().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}
