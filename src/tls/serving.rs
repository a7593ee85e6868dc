//! The certificate that is served right now. It changes under a running listener.

use super::Pair;
use crate::{pem, telemetry::Metrics};
use rustls::{
    RootCertStore, ServerConfig,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

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
        self.metrics.certificate_ends(pair.ends);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = current.replace(pair.certified.clone());
        before.is_none_or(|before| before.cert != pair.certified.cert)
    }

    /// The configuration of the listener. With a client authority, only who shows a certificate of it may speak.
    pub fn config(&self, client_ca: Option<&Path>) -> Result<Arc<ServerConfig>, String> {
        let builder = ServerConfig::builder();
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                pem::trust(&mut roots, "--client-ca-file", path)?;
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
                builder.with_client_cert_verifier(
                    verifier.map_err(|e| format!("--client-ca-file {}: {e}", path.display()))?,
                )
            }
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
