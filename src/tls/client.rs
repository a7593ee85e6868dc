//! Authentication of API servers by client certificate.

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

/// The client certificates that the webhook listener accepts.
#[derive(Clone, Debug)]
pub struct ClientAuth {
    /// PEM file with the CA that signs the client certificates.
    pub authority: PathBuf,
    /// A certificate must have one of these common names or DNS names. Empty accepts every certificate of the CA.
    pub names: Vec<String>,
}

/// Accepts a certificate that rustls accepts and that has one of the listed names.
#[derive(Debug)]
struct NameVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl ClientAuth {
    /// The verifier for rustls. An error is a sentence for the operator.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let mut roots = RootCertStore::empty();
        pem::add_root_certificates(&mut roots, "--client-ca-file", &self.authority)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let verifier = verifier.map_err(|e| self.error(&e.to_string()))?;
        if self.names.is_empty() {
            return Ok(verifier);
        }
        Ok(Arc::new(NameVerifier {
            verifier,
            names: self.names.clone(),
        }))
    }

    fn error(&self, why: &str) -> String {
        format!("--client-ca-file {}: {why}", Path::display(&self.authority))
    }
}

impl NameVerifier {
    fn has_listed_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = Certificate::from_der(certificate) else {
            return false;
        };
        let is_listed = |name: &String| self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
        common_name(&certificate).iter().any(is_listed)
            || alternative_names(&certificate).iter().any(is_listed)
    }
}

impl ClientCertVerifier for NameVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // The signature is verified first: certificates that the CA did not sign are not parsed.
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        if self.has_listed_name(end_entity) {
            Ok(verified)
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
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
