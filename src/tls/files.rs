//! The serving certificate from files.

use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{path::Path, sync::Arc};

/// Reads the pair and checks that its halves belong together.
pub fn server_config(cert: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| {
            format!(
                "--tls-cert {}: {e}; give a PEM file with the certificate chain",
                cert.display()
            )
        })?;
    if chain.is_empty() {
        return Err(format!("--tls-cert {} holds no PEM certificate", cert.display()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| {
        format!(
            "--tls-key {}: {e}; give a PEM file with the private key",
            key.display()
        )
    })?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(|e| {
            format!(
                "--tls-cert {} and --tls-key {} cannot be used together: {e}",
                cert.display(),
                key.display()
            )
        })?;
    // The API server speaks HTTP/1.1 to webhooks (kubernetes#82090).
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
