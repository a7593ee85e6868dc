//! A certificate chain and its private key, checked to belong together before they are served.

use super::names::alternative_names;
use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::sync::Arc;
use x509_cert::{Certificate, der::Decode};

/// A certificate chain and its private key.
#[derive(Clone, Debug)]
pub struct CertificateAndKey {
    /// Both in the form that rustls serves.
    pub certified: Arc<CertifiedKey>,
    /// The certificate's `notAfter`.
    pub not_after: Timestamp,
    /// The certificate's DNS names and IP addresses.
    pub names: Vec<String>,
}

impl CertificateAndKey {
    /// Reads PEM. The error says what is wrong with which input, and does not contain any of it.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("the certificate chain is not valid PEM: {e}"))?;
        let leaf = chain.first().ok_or("there is no PEM certificate")?;
        let parsed =
            Certificate::from_der(leaf).map_err(|e| format!("the certificate cannot be parsed: {e}"))?;
        let validity = parsed.tbs_certificate().validity();
        let not_after = Timestamp::UNIX_EPOCH
            .checked_add(validity.not_after.to_unix_duration())
            .map_err(|e| format!("the certificate's validity: {e}"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "there is no PEM private key (PKCS#8, SEC1 or PKCS#1)".to_owned())?;
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| format!("the certificate and the private key do not fit together: {e}"))?;
        Ok(Self {
            certified: Arc::new(certified),
            not_after,
            names: alternative_names(&parsed),
        })
    }
}
