//! JSON Web Tokens signed with RS256, the algorithm of Entra's and ACR's tokens and of federated credentials.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents},
};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The claims or the header of a token.
pub type JsonObject = Map<String, Value>;

/// A private key, with the id of its public key.
pub struct SigningKey {
    id: String,
    pair: RsaKeyPair,
}

impl SigningKey {
    /// Reads a PKCS#8 PEM. `None` if it is not an RSA key of 2048 bits or more.
    pub fn from_pem(id: &str, pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok()?;
        Some(Self {
            id: id.to_owned(),
            pair,
        })
    }

    /// Signs the claims. `None` only if the system has no randomness.
    pub fn sign(&self, claims: &Value) -> Option<String> {
        let header = json!({"typ": "JWT", "alg": "RS256", "kid": self.id});
        let mut token = format!("{}.{}", encode(&header.to_string()), encode(&claims.to_string()));
        let mut signature = vec![0; self.pair.public().modulus_len()];
        self.pair
            .sign(
                &RSA_PKCS1_SHA256,
                &SystemRandom::new(),
                token.as_bytes(),
                &mut signature,
            )
            .ok()?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Some(token)
    }

    /// The public key, as a JWKS document.
    pub fn key_set(&self) -> KeySet {
        let public: RsaPublicKeyComponents<Vec<u8>> = self.pair.public().into();
        let key = json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(public.n), "e": URL_SAFE_NO_PAD.encode(public.e),
        });
        KeySet {
            keys: key.as_object().cloned().into_iter().collect(),
        }
    }

    /// The claims of a token, if this key signed it.
    pub fn verified(&self, token: &str) -> Option<JsonObject> {
        let token = Unverified::parse(token)?;
        self.key_set().verify(&token).ok()?;
        Some(token.claims)
    }
}

/// A JWKS document (RFC 7517). Only its RSA keys are used.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct KeySet {
    keys: Vec<JsonObject>,
}

impl KeySet {
    pub fn verify(&self, token: &Unverified<'_>) -> Result<(), SignatureError> {
        let id = token.header.get("kid");
        let mut candidates = self.keys.iter().filter(|key| key.get("kid") == id).peekable();
        if candidates.peek().is_none() {
            return Err(SignatureError::UnknownKey);
        }
        let is_valid = candidates.filter_map(public_key).any(|key| {
            key.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                token.signed.as_bytes(),
                &token.signature,
            )
            .is_ok()
        });
        if is_valid {
            Ok(())
        } else {
            Err(SignatureError::Mismatch)
        }
    }
}

fn public_key(key: &JsonObject) -> Option<RsaPublicKeyComponents<Vec<u8>>> {
    let part = |name: &str| URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?).ok();
    Some(RsaPublicKeyComponents {
        n: part("n")?,
        e: part("e")?,
    })
}

/// Why a signature is not valid.
#[derive(Debug, PartialEq)]
pub enum SignatureError {
    /// No published key has the token's key id.
    UnknownKey,
    /// The key with the token's key id did not make the signature.
    Mismatch,
}

/// A decoded token, not verified yet.
pub struct Unverified<'a> {
    signed: &'a str,
    signature: Vec<u8>,
    pub header: JsonObject,
    pub claims: JsonObject,
}

impl<'a> Unverified<'a> {
    pub fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Self {
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
            header: decode(header)?,
            claims: decode(claims)?,
        })
    }

    pub fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str()
    }

    /// The claim `aud` is a string or a list.
    pub fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(audience)) => vec![audience],
            Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    pub fn is_rs256(&self) -> bool {
        self.header.get("alg").and_then(Value::as_str) == Some("RS256")
    }
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn decode(part: &str) -> Option<JsonObject> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, pem: &str) -> SigningKey {
        SigningKey::from_pem(id, pem.as_bytes()).unwrap()
    }

    #[test]
    fn a_token_is_verified_only_by_the_key_that_signed_it() {
        let (ours, other) = (
            key("a", include_str!("../keys/acr.pem")),
            key("a", include_str!("../keys/entra.pem")),
        );
        let token = ours.sign(&json!({"sub": "me"})).unwrap();
        assert_eq!(ours.verified(&token).unwrap()["sub"], "me");
        assert!(other.verified(&token).is_none());
    }

    #[test]
    fn changed_claims_invalidate_the_signature() {
        let key = key("a", include_str!("../keys/acr.pem"));
        let token = key.sign(&json!({"sub": "me"})).unwrap();
        let [header, _, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let forged = format!("{header}.{}.{signature}", encode(r#"{"sub":"you"}"#));
        let forged = Unverified::parse(&forged).unwrap();
        assert_eq!(key.key_set().verify(&forged), Err(SignatureError::Mismatch));
    }

    #[test]
    fn an_unknown_key_id_is_distinguished_from_an_invalid_signature() {
        let (a, b) = (
            key("a", include_str!("../keys/acr.pem")),
            key("b", include_str!("../keys/acr.pem")),
        );
        let token = a.sign(&json!({})).unwrap();
        assert_eq!(
            b.key_set().verify(&Unverified::parse(&token).unwrap()),
            Err(SignatureError::UnknownKey)
        );
    }

    #[test]
    fn a_text_that_is_not_a_token_is_not_parsed() {
        for text in ["", "a.b", "a.b.c", "....", "e30.e30"] {
            assert!(Unverified::parse(text).is_none(), "{text}");
        }
    }
}
