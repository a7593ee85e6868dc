//! Connections that are opened while something else is still awaited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};

use super::Gates;

/// A connection that was used within this is there still, as far as it is up to us.
const LASTS: Duration = Duration::from_secs(60);
/// Hosts that are opened ahead at the same time. Names of hosts come from users, and a host may hang.
const MOST: usize = 16;

/// Opens them; clones share everything.
///
/// reqwest opens a connection for a request alone, so this is one that anybody may make and that asks for nothing secret.
#[derive(Clone)]
pub struct Ahead {
    http: reqwest::Client,
    /// When each host was last asked, or is about to be.
    asked: Arc<Mutex<HashMap<String, Instant>>>,
    gates: Gates,
    permits: Arc<Semaphore>,
}

// === impl Ahead ===

impl Ahead {
    /// Connections of this client.
    pub fn new(http: reqwest::Client, gates: Gates) -> Self {
        Self {
            http,
            asked: Arc::default(),
            gates,
            permits: Arc::new(Semaphore::new(MOST)),
        }
    }

    /// This host is about to be asked: where there is no connection to it, one is opened by a request for this path.
    pub fn open(&self, host: &str, path: &str) {
        if !self.is_needed(host) || self.gates.is_closed(host) {
            return;
        }
        // It only saves time: where there is no room, the request that matters opens its own.
        let Ok(permit) = self.permits.clone().try_acquire_owned() else {
            return;
        };
        let url = format!("https://{host}{path}");
        let request = self.http.get(&url);
        tokio::spawn(async move {
            // Whatever is wrong, the request that matters will meet it too, and tell.
            if let Err(error) = super::send(request).await {
                tracing::debug!(url, error, "no connection could be opened ahead");
            }
            drop(permit);
        });
    }

    fn is_needed(&self, host: &str) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(last) = asked.get_mut(host) {
            return now - std::mem::replace(last, now) > LASTS;
        }
        asked.retain(|_, last| now - *last <= LASTS);
        asked.insert(host.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_opened_where_none_was_used_for_a_while() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let ahead = Ahead::new(http, Gates::new(1, crate::telemetry::Metrics::new()));
        assert!(ahead.is_needed("a"));
        for _ in 0..3 {
            assert!(!ahead.is_needed("a"));
            tokio::time::advance(LASTS).await;
        }
        assert!(ahead.is_needed("b"));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(ahead.is_needed("a"));
        tokio::time::advance(2 * LASTS).await;
        assert!(ahead.is_needed("c"));
        assert_eq!(
            ahead.asked.lock().unwrap().len(),
            1,
            "what is long past is forgotten"
        );
    }
}
