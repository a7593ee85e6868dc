//! A certificate chain and its key, checked to belong together before anybody is served with them.

use super::names::alternative_names;
use jiff::Timestamp;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use std::sync::Arc;
use x509_cert::{Certificate, der::Decode, time::Time};

/// What can be served, and how long.
#[derive(Clone, Debug)]
pub struct Pair {
    /// As rustls wants it.
    pub certified: Arc<CertifiedKey>,
    /// Its `notBefore`.
    pub begins: Timestamp,
    /// Its `notAfter`.
    pub ends: Timestamp,
    /// Its DNS names and IP addresses.
    pub names: Vec<String>,
}

// === impl Pair ===

impl Pair {
    /// Reads PEM; an error says what is wrong with which half, and holds nothing of either.
    pub fn parse(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("the certificate chain is no PEM: {e}"))?;
        let leaf = chain.first().ok_or("there is no PEM certificate")?;
        let parsed =
            Certificate::from_der(leaf).map_err(|e| format!("the certificate cannot be read: {e}"))?;
        let validity = parsed.tbs_certificate().validity();
        let time = |time: Time| {
            let time = Timestamp::UNIX_EPOCH.checked_add(time.to_unix_duration());
            time.map_err(|e| format!("the certificate's validity: {e}"))
        };
        let (begins, ends) = (time(validity.not_before)?, time(validity.not_after)?);
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| "there is no PEM private key (PKCS#8, SEC1 or PKCS#1)".to_owned())?;
        let provider = CryptoProvider::get_default().ok_or("no TLS provider is installed")?;
        let certified = CertifiedKey::from_der(chain, key, provider)
            .map_err(|e| format!("certificate and key cannot be used together: {e}"))?;
        Ok(Self {
            certified: Arc::new(certified),
            begins,
            ends,
            names: alternative_names(&parsed),
        })
    }

    /// Whether it is valid at this time by the wall clock.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.begins <= now && now < self.ends
    }
}
