//! When an ACR token ends. The token replies carry no `expires_in`; the time is
//! in the token itself (RFC 7519 §4.1.4).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;

/// The `exp` of a JWT, unverified: the registry that made the token is the one to check it.
pub fn expiry(token: &str) -> Option<Timestamp> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let payload = token.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    Timestamp::from_second(claims.exp as i64).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_read_from_the_token_or_not_at_all() {
        let token = |json: &str| format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(json));
        assert_eq!(
            expiry(&token(r#"{"exp":1700000000,"sub":"x"}"#)),
            Timestamp::from_second(1_700_000_000).ok()
        );
        for bad in ["", "a.b.c", "opaque", &token("{}"), &token(r#"{"exp":"soon"}"#)] {
            assert_eq!(expiry(bad), None, "{bad:?}");
        }
    }
}
