//! A certificate chain and its private key, checked to belong together before they are served.

use super::CertificateChain;
use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::sync::Arc;

/// A certificate chain and its private key.
#[derive(Clone, Debug)]
pub struct CertificateAndKey {
    /// Both in the form that rustls serves.
    pub certified: Arc<CertifiedKey>,
    /// The certificate's `notBefore`.
    pub not_before: Timestamp,
    /// The certificate's `notAfter`.
    pub not_after: Timestamp,
    /// The certificate's DNS names and IP addresses.
    pub names: Vec<String>,
}

impl CertificateAndKey {
    /// Reads PEM. The error says what is wrong with which input, and does not contain any of it.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let CertificateChain {
            certificates,
            not_before,
            not_after,
            names,
            ..
        } = CertificateChain::parse(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "there is no PEM private key (PKCS#8, SEC1 or PKCS#1)".to_owned())?;
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let certified = CertifiedKey::from_der(certificates, key, provider)
            .map_err(|e| format!("the certificate and the private key do not fit together: {e}"))?;
        Ok(Self {
            certified: Arc::new(certified),
            not_before,
            not_after,
            names,
        })
    }
}
