//! Opens connections to a host before the first request needs one.

use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, time::Instant};

use super::Gates;

/// A connection used within this time is assumed to be open. The client's own idle timeout is longer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of concurrent preconnects. Users choose the host names, and a host may hang.
const MAX_PRECONNECTS: usize = 16;

/// Opens connections ahead of requests. Clones share all state.
///
/// reqwest opens a connection only for a request, so a preconnect sends a request without credentials.
#[derive(Clone)]
pub struct Preconnector {
    http: reqwest::Client,
    /// When each host was last called or is about to be called.
    last_used: Arc<Mutex<HashMap<String, Instant>>>,
    gates: Gates,
    permits: Arc<Semaphore>,
}

impl Preconnector {
    /// Opens connections for this client.
    pub fn new(http: reqwest::Client, gates: Gates) -> Self {
        Self {
            http,
            last_used: Arc::default(),
            gates,
            permits: Arc::new(Semaphore::new(MAX_PRECONNECTS)),
        }
    }

    /// Opens a connection by a request for `path`, unless the client was used for this host recently.
    pub fn preconnect(&self, host: &str, path: &str) {
        if !self.is_needed(host) || self.gates.is_unreachable(host) {
            return;
        }
        // A preconnect only saves time. Without a permit, the actual request opens its own connection.
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            return;
        };
        let url = format!("https://{host}{path}");
        let request = self.http.get(&url);
        tokio::spawn(async move {
            // The actual request will meet the same error and report it.
            if let Err(error) = super::send(request).await {
                tracing::debug!(url, %error, "a preconnect failed");
            }
            drop(permit);
        });
    }

    fn is_needed(&self, host: &str) -> bool {
        let mut last_used = self.last_used.lock();
        let now = Instant::now();
        if let Some(last) = last_used.get_mut(host) {
            return now - std::mem::replace(last, now) > IDLE_TIMEOUT;
        }
        last_used.retain(|_, last| now - *last <= IDLE_TIMEOUT);
        last_used.insert(host.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_host_is_preconnected_only_if_it_was_not_used_recently() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let preconnector = Preconnector::new(http, Gates::new(1, crate::telemetry::Metrics::new()));
        assert!(preconnector.is_needed("a"));
        for _ in 0..3 {
            assert!(!preconnector.is_needed("a"));
            tokio::time::advance(IDLE_TIMEOUT).await;
        }
        assert!(preconnector.is_needed("b"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(preconnector.is_needed("a"));
        tokio::time::advance(2 * IDLE_TIMEOUT).await;
        assert!(preconnector.is_needed("c"));
        assert_eq!(preconnector.last_used.lock().len(), 1, "idle hosts are removed");
    }
}
