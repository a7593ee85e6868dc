//! Serves the certificate from the files of --tls-cert and --tls-key, and reloads them when their content changes.

use super::{CertificateAndKey, CertificateSlot};
use crate::{start_error::StartError, tasks::Tasks};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// The content is polled. A Secret volume changes by swapping symbolic links, about a minute after the Secret, so file
/// system events would not be faster.
const RELOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Serves the certificate of these files, and starts a task that reloads them. A later error leaves the previous
/// certificate in use.
pub fn serve_files(cert: &Path, key: &Path, slot: &CertificateSlot, tasks: &Tasks) -> Result<(), StartError> {
    let files = CertificateFiles {
        cert: cert.to_owned(),
        key: key.to_owned(),
    };
    let (fingerprint, certificate) = files.read().map_err(StartError::Flag)?;
    slot.set(&certificate);
    tasks.spawn(
        "watch of the certificate files",
        files.reload(fingerprint, slot.clone()),
    );
    Ok(())
}

struct CertificateFiles {
    cert: PathBuf,
    key: PathBuf,
}

impl CertificateFiles {
    async fn reload(self, mut served: u64, slot: CertificateSlot) {
        let mut ticks = interval(RELOAD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_error = None;
        loop {
            ticks.tick().await;
            match self.read() {
                Ok((fingerprint, _)) if fingerprint == served => {}
                Ok((fingerprint, certificate)) => {
                    served = fingerprint;
                    slot.set(&certificate);
                    tracing::info!(ends = %certificate.not_after, "certificate files reloaded");
                }
                Err(error) if last_error.as_ref() == Some(&error) => continue,
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the certificate files are invalid; the previous certificate stays in use"
                    );
                    last_error = Some(error);
                    continue;
                }
            }
            last_error = None;
        }
    }

    /// Returns a fingerprint of the content, and the certificate.
    fn read(&self) -> Result<(u64, CertificateAndKey), String> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = std::fs::read(&self.cert).map_err(|e| format!("--tls-cert {cert}: {e}"))?;
        let private = std::fs::read(&self.key).map_err(|e| format!("--tls-key {key}: {e}"))?;
        let certificate = CertificateAndKey::parse(&chain, &private)
            .map_err(|e| format!("--tls-cert {cert} and --tls-key {key}: {e}"))?;
        let mut hasher = DefaultHasher::new();
        (chain, private).hash(&mut hasher);
        Ok((hasher.finish(), certificate))
    }
}
