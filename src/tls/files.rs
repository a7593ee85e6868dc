//! The serving certificate from files that somebody else makes, read anew when their content changes.

use super::{Pair, Serving};
use crate::tasks::Tasks;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};

/// By content, not by the file system's events: a Secret's volume is a chain of links that is swapped, a minute late.
const LOOK: Duration = Duration::from_secs(5);

/// Serves the pair of these files; an error is a sentence for the operator. Later errors leave the pair of before.
pub fn follow(cert: &Path, key: &Path, serving: &Serving, tasks: &Tasks) -> Result<(), String> {
    let files = Files {
        cert: cert.to_owned(),
        key: key.to_owned(),
    };
    let (content, pair) = files.read()?;
    serving.set(&pair);
    tasks.spawn(
        "watch of the certificate files",
        files.follow(content, serving.clone()),
    );
    Ok(())
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
}

// === impl Files ===

impl Files {
    async fn follow(self, mut known: u64, serving: Serving) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failed = None;
        loop {
            looks.tick().await;
            match self.read() {
                Ok((content, _)) if content == known => {}
                Ok((content, pair)) => {
                    known = content;
                    serving.set(&pair);
                    tracing::info!(ends = %pair.ends, "the certificate files have changed, and are served");
                }
                Err(error) if failed.as_ref() == Some(&error) => continue,
                Err(error) => {
                    tracing::warn!(
                        error,
                        "the certificate files cannot be used: the pair of before is served on"
                    );
                    failed = Some(error);
                    continue;
                }
            }
            failed = None;
        }
    }

    /// A fingerprint of their content, and the pair.
    fn read(&self) -> Result<(u64, Pair), String> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = std::fs::read(&self.cert).map_err(|e| format!("--tls-cert {cert}: {e}"))?;
        let private = std::fs::read(&self.key).map_err(|e| format!("--tls-key {key}: {e}"))?;
        let pair = Pair::parse(&chain, &private)
            .map_err(|e| format!("--tls-cert {cert} and --tls-key {key}: {e}"))?;
        let mut hasher = DefaultHasher::new();
        (chain, private).hash(&mut hasher);
        Ok((hasher.finish(), pair))
    }
}
