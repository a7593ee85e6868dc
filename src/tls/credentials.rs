//! A secret path and a serving certificate, as they are stored.

use super::{CertificateAndKey, CertificateChain, SecretPath};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

/// The Secret's key of the path.
pub const PATH_KEY: &str = "path";

/// A path and a certificate, which are rotated together.
#[derive(Clone)]
pub struct ServingCredentials {
    /// The path.
    pub path: SecretPath,
    /// None if the certificate comes from files.
    pub certificate: Option<SignedCertificate>,
}

/// A CA certificate, and the only certificate that the CA has signed. The CA's private key is not stored.
#[derive(Clone)]
pub struct SignedCertificate {
    /// The CA certificate, in PEM.
    pub ca: String,
    /// The certificate chain, in PEM.
    pub chain: String,
    /// The certificate's private key, in PEM.
    pub key: SecretString,
}

impl SignedCertificate {
    /// Reads the data of a Secret, whose keys start with `prefix`.
    pub fn from_data<'a>(prefix: &str, get: impl Fn(&str) -> Option<&'a [u8]>) -> Option<Self> {
        let text = |key: &str| {
            let value = get(&format!("{prefix}{key}"))?;
            String::from_utf8(value.to_vec()).ok()
        };
        Some(Self {
            ca: text("ca.crt")?,
            chain: text("tls.crt")?,
            key: text("tls.key")?.into(),
        })
    }

    /// Checks that a client that only trusts the CA accepts the certificate for each of its names.
    pub fn check(&self, now: Timestamp) -> Result<CertificateAndKey, String> {
        let parsed = CertificateAndKey::parse(self.chain.as_bytes(), self.key.expose_secret().as_bytes())?;
        let chain = CertificateChain::parse(self.chain.as_bytes())?;
        if parsed.names.is_empty() {
            return Err("the certificate has neither a DNS name nor an IP address".to_owned());
        }
        for name in &parsed.names {
            chain.verify(self.ca.as_bytes(), name, now)?;
        }
        Ok(parsed)
    }
}
