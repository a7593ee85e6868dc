//! The certificate in use. It changes while the listener runs.

use super::{AllowedClients, CertificateAndKey};
use crate::{start_error::StartError, telemetry::Metrics};
use parking_lot::RwLock;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::sync::Arc;

/// The certificate in use. Clones share it.
#[derive(Clone, Debug)]
pub struct CertificateSlot {
    current: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
    metrics: Metrics,
}

impl CertificateSlot {
    /// An empty slot: every handshake fails.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            current: Arc::default(),
            metrics,
        }
    }

    /// Serves this certificate from the next handshake on. Returns whether it differs from the one before.
    pub fn set(&self, certificate: &CertificateAndKey) -> bool {
        self.metrics
            .set_certificate_validity(certificate.not_before, certificate.not_after);
        let mut current = self.current.write();
        let previous = current.replace(certificate.certified.clone());
        previous.is_none_or(|previous| previous.cert != certificate.certified.cert)
    }

    /// The listener's TLS configuration. With `clients`, a client must present one of the allowed certificates.
    pub fn server_config(&self, clients: Option<&AllowedClients>) -> Result<Arc<ServerConfig>, StartError> {
        let builder = ServerConfig::builder();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.verifier()?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(self.clone()));
        // The API server speaks HTTP/1.1 to webhooks (kubernetes#82090).
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for CertificateSlot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.read().clone()
    }
}
