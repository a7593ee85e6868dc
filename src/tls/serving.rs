//! The certificate that is served right now. It changes under a running listener.

use super::{Clients, Pair};
use crate::telemetry::Metrics;
use rustls::{
    ServerConfig,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::sync::{Arc, PoisonError, RwLock};

/// Clones share it.
#[derive(Clone, Debug)]
pub struct Serving {
    current: Arc<RwLock<Option<Arc<CertifiedKey>>>>,
    metrics: Metrics,
}

// === impl Serving ===

impl Serving {
    /// Nothing to serve yet: every handshake fails.
    pub fn new(metrics: Metrics) -> Self {
        Self {
            current: Arc::default(),
            metrics,
        }
    }

    /// From the next handshake on, this one. Whether that is news.
    pub fn set(&self, pair: &Pair) -> bool {
        self.metrics.set_certificate_expiration(pair.ends);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(pair.certified.clone());
        before.is_none_or(|before| before.cert != pair.certified.cert)
    }

    /// The configuration of the listener; a client must show a certificate where `clients` says which.
    pub fn config(&self, clients: Option<&Clients>) -> Result<Arc<ServerConfig>, String> {
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

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
