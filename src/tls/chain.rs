//! A certificate chain, as a client sees it.

use super::names::alternative_names;
use jiff::Timestamp;
use rustls::{
    RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use std::{sync::Arc, time::Duration};
use x509_cert::{Certificate, der::Decode};

/// A certificate chain without its private key.
#[derive(Clone, Debug)]
pub struct CertificateChain {
    /// The chain, which begins with the served certificate.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The `notBefore` of the served certificate.
    pub not_before: Timestamp,
    /// The `notAfter` of the served certificate.
    pub not_after: Timestamp,
    /// The DNS names and IP addresses of the served certificate.
    pub names: Vec<String>,
}

impl CertificateChain {
    /// Reads PEM. The error does not contain any of it.
    pub fn parse(pem: &[u8]) -> Result<Self, String> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("the certificate chain is not valid PEM: {e}"))?;
        let leaf = certificates.first().ok_or("there is no PEM certificate")?;
        let parsed =
            Certificate::from_der(leaf).map_err(|e| format!("the certificate cannot be parsed: {e}"))?;
        let validity = parsed.tbs_certificate().validity();
        let time = |since_epoch: Duration| {
            Timestamp::UNIX_EPOCH
                .checked_add(since_epoch)
                .map_err(|e| format!("the certificate's validity: {e}"))
        };
        Ok(Self {
            not_before: time(validity.not_before.to_unix_duration())?,
            not_after: time(validity.not_after.to_unix_duration())?,
            names: alternative_names(&parsed),
            certificates,
        })
    }

    /// Checks that a client that only trusts these CAs, in PEM, accepts the chain for this name.
    pub fn verify(&self, authorities: &[u8], name: &str, now: Timestamp) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(authorities) {
            let authority = authority.map_err(|e| format!("the CA: {e}"))?;
            roots.add(authority).map_err(|e| format!("the CA: {e}"))?;
        }
        let verifier = WebPkiServerVerifier::builder(Arc::new(roots))
            .build()
            .map_err(|e| e.to_string())?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().max(0).unsigned_abs()));
        let (leaf, others) = self.certificates.split_first().ok_or("there is no certificate")?;
        let server = ServerName::try_from(name).map_err(|e| format!("{name}: {e}"))?;
        let verified = verifier.verify_server_cert(leaf, others, &server, &[], now);
        verified.map(drop).map_err(|e| format!("for {name}: {e}"))
    }
}
