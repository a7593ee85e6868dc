//! Which client certificates the webhook listener accepts.

use super::names::{alternative_names, common_name};
use crate::pem;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use x509_cert::{Certificate, der::Decode};

/// The client certificates that are accepted.
#[derive(Clone, Debug)]
pub struct Clients {
    /// PEM file of the authority that signs them.
    pub authority: PathBuf,
    /// Common names or DNS names, one of which a certificate must have; empty where every certificate of the authority will do.
    pub names: Vec<String>,
}

/// Accepts what rustls accepts if it also has one of these names.
#[derive(Debug)]
struct Named {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

// === impl Clients ===

impl Clients {
    /// For rustls; an error is a sentence for the operator.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let mut roots = RootCertStore::empty();
        pem::add_root_certificates(&mut roots, "--client-ca-file", &self.authority)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let verifier = verifier.map_err(|e| self.wrong(&e.to_string()))?;
        if self.names.is_empty() {
            return Ok(verifier);
        }
        Ok(Arc::new(Named {
            verifier,
            names: self.names.clone(),
        }))
    }

    fn wrong(&self, why: &str) -> String {
        format!("--client-ca-file {}: {why}", Path::display(&self.authority))
    }
}

// === impl Named ===

impl Named {
    fn has_a_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = Certificate::from_der(certificate) else {
            return false;
        };
        let is_listed = |name: &String| self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
        common_name(&certificate).iter().any(is_listed)
            || alternative_names(&certificate).iter().any(is_listed)
    }
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // First: nobody's certificate is read that the authority has not signed.
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        match self.has_a_name(end_entity) {
            true => Ok(verified),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
