//! A certificate chain with its private key, checked to match before the listener uses them.

use super::names::alternative_names;
use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::sync::Arc;
use x509_cert::{Certificate, der::Decode, time::Time};

/// A certificate chain and its private key, with the validity and names of the leaf.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    /// The chain and key in the form rustls needs.
    pub certified_key: Arc<CertifiedKey>,
    /// `notBefore` of the leaf certificate.
    pub not_before: Timestamp,
    /// `notAfter` of the leaf certificate.
    pub not_after: Timestamp,
    /// DNS names and IP addresses of the leaf certificate.
    pub names: Vec<String>,
}

impl ServingCertificate {
    /// Parses PEM. An error names the faulty part and contains neither certificate nor key data.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("the certificate chain is not valid PEM: {e}"))?;
        let leaf = chain.first().ok_or("no PEM certificate was found")?;
        let parsed =
            Certificate::from_der(leaf).map_err(|e| format!("the certificate cannot be read: {e}"))?;
        let validity = parsed.tbs_certificate().validity();
        let time = |time: Time| {
            let time = Timestamp::UNIX_EPOCH.checked_add(time.to_unix_duration());
            time.map_err(|e| format!("the certificate's validity: {e}"))
        };
        let (not_before, not_after) = (time(validity.not_before)?, time(validity.not_after)?);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "no PEM private key (PKCS#8, SEC1 or PKCS#1) was found".to_owned())?;
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| format!("the certificate and the private key cannot be used together: {e}"))?;
        Ok(Self {
            certified_key: Arc::new(certified),
            not_before,
            not_after,
            names: alternative_names(&parsed),
        })
    }

    /// Whether the leaf certificate is valid at `now`.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}
