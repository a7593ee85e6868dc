//! An issuer of assertions for tests without a cluster.

use crate::jwt::SigningKey;
use jiff::Timestamp;
use serde_json::{Value, json};

/// Signs assertions with a built-in key. A world trusts it through its JWKS document.
pub struct AssertionIssuer {
    issuer: String,
    key: SigningKey,
}

impl AssertionIssuer {
    /// An issuer with this name. `None` only if the built-in key cannot be read.
    pub fn new(issuer: &str) -> Option<Self> {
        Self::with_key(
            issuer,
            "azure-emulator-issuer",
            include_bytes!("../keys/issuer.pem"),
        )
    }

    /// An issuer with the caller's key: PKCS#8 PEM, RSA of 2048 bits or more.
    pub fn with_key(issuer: &str, key_id: &str, pem: &[u8]) -> Option<Self> {
        Some(Self {
            issuer: issuer.to_owned(),
            key: SigningKey::from_pem(key_id, pem)?,
        })
    }

    /// The JWKS document on one line. JSON is YAML, so it fits after `jwks:` in a world.
    pub fn jwks(&self) -> String {
        json!(self.key.key_set()).to_string()
    }

    /// An assertion about the subject for the audience, valid for ten minutes from now.
    pub fn assertion(&self, subject: &str, audience: &str) -> String {
        let now = Timestamp::now().as_second();
        self.sign(&json!({
            "iss": self.issuer,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + 600,
        }))
    }

    /// Signs any claims. The result is empty only if the system has no randomness.
    pub fn sign(&self, claims: &Value) -> String {
        self.key.sign(claims).unwrap_or_default()
    }
}
