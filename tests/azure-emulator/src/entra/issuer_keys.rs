//! The public keys of assertion issuers: from the world, a file or a URL.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::jwt::{KeySet, SignatureError, Unverified};
use crate::log::locked;
use crate::world::Issuer;

/// Keys are fetched again after so long, or at once for a key id that is not among them.
const MAX_AGE: Duration = Duration::from_secs(60);
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct IssuerKeys {
    cache: Mutex<HashMap<String, (Instant, Arc<KeySet>)>>,
}

/// Keys that could not be had. The cause goes to standard error: Entra's own reply does not tell it either.
pub(crate) struct Unavailable;

// === impl IssuerKeys ===

impl IssuerKeys {
    /// The outer error: no keys. The inner: keys, but the signature does not hold.
    pub(crate) async fn verify(
        &self,
        issuer: Option<&Issuer>,
        assertion: &Unverified<'_>,
    ) -> Result<Result<(), SignatureError>, Unavailable> {
        let issuer = issuer.ok_or(Unavailable)?;
        if let Some(keys) = self.cached(&issuer.issuer) {
            let outcome = keys.verify(assertion);
            if outcome != Err(SignatureError::UnknownKey) {
                return Ok(outcome);
            }
        }
        let keys = Arc::new(read(issuer).await.map_err(|why| {
            eprintln!("azure-emulator: keys of the issuer {}: {why}", issuer.issuer);
            Unavailable
        })?);
        locked(&self.cache).insert(issuer.issuer.clone(), (Instant::now(), Arc::clone(&keys)));
        Ok(keys.verify(assertion))
    }

    /// Forgets all keys: another world may find them elsewhere.
    pub(crate) fn forget(&self) {
        locked(&self.cache).clear();
    }

    fn cached(&self, issuer: &str) -> Option<Arc<KeySet>> {
        let cache = locked(&self.cache);
        let (fetched, keys) = cache.get(issuer)?;
        (fetched.elapsed() < MAX_AGE).then(|| Arc::clone(keys))
    }
}

async fn read(issuer: &Issuer) -> Result<KeySet, String> {
    if let Some(keys) = &issuer.jwks {
        return Ok(keys.clone());
    }
    let (bytes, source) = match (&issuer.jwks_file, &issuer.jwks_url) {
        (Some(path), _) => {
            let source = path.display().to_string();
            (
                std::fs::read(path).map_err(|error| format!("{source}: {error}"))?,
                source,
            )
        }
        (_, Some(url)) => (fetch(issuer, url).await?, url.clone()),
        _ => return Err("the world names no source".to_owned()),
    };
    serde_json::from_slice(&bytes).map_err(|error| format!("{source}: not a JWKS document: {error}"))
}

async fn fetch(issuer: &Issuer, url: &str) -> Result<Vec<u8>, String> {
    let read_file =
        |path: &std::path::Path| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
    let mut builder = reqwest::Client::builder().no_proxy().timeout(FETCH_TIMEOUT);
    if let Some(path) = &issuer.ca_file {
        let pem = read_file(path)?;
        let roots = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        builder = builder.tls_certs_only(roots);
    }
    let client = builder.build().map_err(|error| error.to_string())?;
    let mut request = client.get(url);
    if let Some(path) = &issuer.bearer_token_file {
        let token = read_file(path)?;
        request = request.bearer_auth(String::from_utf8_lossy(&token).trim());
    }
    let reply = request.send().await.and_then(reqwest::Response::error_for_status);
    let bytes = match reply {
        Ok(reply) => reply.bytes().await,
        Err(error) => Err(error),
    };
    bytes
        .map(|bytes| bytes.to_vec())
        .map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })
}
