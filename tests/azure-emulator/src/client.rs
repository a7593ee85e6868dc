//! A client of the control port of an emulator that runs elsewhere.

use std::time::Duration;

use crate::faults::Fault;
use crate::log::{Credentials, RequestRecord};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Talks to a control port.
#[derive(Clone, Debug)]
pub struct ControlClient {
    url: String,
    client: reqwest::Client,
}

/// Why the control port did not do what was asked, in one sentence.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It did not answer.
    #[error("the control port {url} does not answer: {}", root(source))]
    Unreachable {
        /// The address that was tried.
        url: String,
        /// What happened instead of an answer.
        source: reqwest::Error,
    },
    /// It refused.
    #[error("{0}")]
    Refused(String),
    /// It answered with something else than the documents expected.
    #[error("the control port answered with an unexpected document: {0}")]
    Unexpected(#[from] serde_json::Error),
}

// === impl ControlClient ===

impl ControlClient {
    /// A client of the control port at this URL (`http://host:port`). No environment proxy is used.
    pub fn new(url: &str) -> Result<Self, ControlError> {
        crate::use_ring();
        let url = url.trim_end_matches('/').to_owned();
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build();
        let client = client.map_err(|source| ControlError::Unreachable {
            url: url.clone(),
            source,
        })?;
        Ok(Self { url, client })
    }

    /// Replaces the world by this one (YAML).
    pub async fn apply(&self, world: &str) -> Result<(), ControlError> {
        self.send(self.client.put(self.at("/world")).body(world.to_owned()))
            .await
            .map(drop)
    }

    /// Replaces the faults.
    pub async fn set_faults(&self, faults: &[Fault]) -> Result<(), ControlError> {
        let faults = serde_json::to_string(faults)?;
        self.send(self.client.put(self.at("/faults")).body(faults))
            .await
            .map(drop)
    }

    /// The request log, oldest first.
    pub async fn requests(&self) -> Result<Vec<RequestRecord>, ControlError> {
        Ok(serde_json::from_str(
            &self.send(self.client.get(self.at("/requests"))).await?,
        )?)
    }

    /// Empties the request log.
    pub async fn clear_requests(&self) -> Result<(), ControlError> {
        self.send(self.client.delete(self.at("/requests")))
            .await
            .map(drop)
    }

    /// Every credential issued or presented so far.
    pub async fn credentials(&self) -> Result<Credentials, ControlError> {
        Ok(serde_json::from_str(
            &self.send(self.client.get(self.at("/credentials"))).await?,
        )?)
    }

    /// The certificate authority, as PEM.
    pub async fn ca_pem(&self) -> Result<String, ControlError> {
        self.send(self.client.get(self.at("/ca.crt"))).await
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<String, ControlError> {
        let unreachable = |source| ControlError::Unreachable {
            url: self.url.clone(),
            source,
        };
        let reply = request.send().await.map_err(unreachable)?;
        let status = reply.status();
        let text = reply.text().await.map_err(unreachable)?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(ControlError::Refused(text.trim().to_owned()))
        }
    }
}

/// The innermost cause: "connection refused" rather than "error sending request".
fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
