//! The client certificates that the webhook listener accepts.

use super::names::{alternative_names, common_name};
use crate::{pem, start_error::StartError};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use std::{path::PathBuf, sync::Arc};
use x509_cert::{Certificate, der::Decode};

/// The client certificates that the listener accepts.
#[derive(Clone, Debug)]
pub struct AllowedClients {
    /// The PEM file of the CA that signs them.
    pub ca_file: PathBuf,
    /// A certificate must have one of these common names or DNS names. If empty, every certificate of the CA is
    /// accepted.
    pub names: Vec<String>,
}

impl AllowedClients {
    /// The verifier for rustls. The error is a message for the operator.
    pub fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, StartError> {
        let mut roots = RootCertStore::empty();
        pem::add_root_certificates(&mut roots, "--client-ca-file", &self.ca_file)?;
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
        let flag = format!("--client-ca-file {}", self.ca_file.display());
        let verifier = verifier.map_err(StartError::failed(flag))?;
        if self.names.is_empty() {
            return Ok(verifier);
        }
        Ok(Arc::new(NamedClientVerifier {
            verifier,
            names: self.names.clone(),
        }))
    }
}

/// Accepts a certificate that rustls accepts and that has one of these names.
#[derive(Debug)]
struct NamedClientVerifier {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl NamedClientVerifier {
    fn has_allowed_name(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = Certificate::from_der(certificate) else {
            return false;
        };
        let is_allowed = |name: &String| {
            self.names
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(name))
        };
        common_name(&certificate).iter().any(is_allowed)
            || alternative_names(&certificate).iter().any(is_allowed)
    }
}

impl ClientCertVerifier for NamedClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // The name is only read from a certificate that the CA has signed.
        let verified = self.verifier.verify_client_cert(end_entity, intermediates, now)?;
        if self.has_allowed_name(end_entity) {
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
