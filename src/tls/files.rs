//! The serving certificate from files that another tool maintains, reloaded when their content changes.

use super::{CertificateSlot, ServingCertificate};
use crate::tasks::Tasks;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// The content is polled rather than watched by file system events: the kubelet updates a Secret volume by swapping symbolic
/// links, up to a minute late.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Serves the certificate in these files and follows their changes. An error is a sentence for the operator; after a later
/// error the previous certificate stays in use.
pub fn follow(cert: &Path, key: &Path, slot: &CertificateSlot, tasks: &Tasks) -> Result<(), String> {
    let files = Files {
        cert: cert.to_owned(),
        key: key.to_owned(),
    };
    let (fingerprint, certificate) = files.read()?;
    slot.set(&certificate);
    tasks.spawn(
        "watch of the certificate files",
        files.follow(fingerprint, slot.clone()),
    );
    Ok(())
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    async fn follow(self, mut known: u64, slot: CertificateSlot) {
        let mut ticks = interval(RECHECK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_error = None;
        loop {
            ticks.tick().await;
            match self.read() {
                Ok((fingerprint, _)) if fingerprint == known => {}
                Ok((fingerprint, certificate)) => {
                    known = fingerprint;
                    slot.set(&certificate);
                    tracing::info!(ends = %certificate.not_after, "the certificate files changed; the new certificate is in use");
                }
                Err(error) if last_error.as_ref() == Some(&error) => continue,
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the certificate files cannot be used; the previous certificate stays in use"
                    );
                    last_error = Some(error);
                    continue;
                }
            }
            last_error = None;
        }
    }

    /// Returns a fingerprint of the content, and the certificate.
    fn read(&self) -> Result<(u64, ServingCertificate), String> {
        let cert = self.cert.display();
        let key = self.key.display();
        let chain = std::fs::read(&self.cert).map_err(|e| format!("--tls-cert {cert}: {e}"))?;
        let private = std::fs::read(&self.key).map_err(|e| format!("--tls-key {key}: {e}"))?;
        let certificate = ServingCertificate::parse(&chain, &private)
            .map_err(|e| format!("--tls-cert {cert} and --tls-key {key}: {e}"))?;
        let mut hasher = DefaultHasher::new();
        (chain, private).hash(&mut hasher);
        Ok((hasher.finish(), certificate))
    }
}
