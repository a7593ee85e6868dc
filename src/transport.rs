//! The HTTP clients for everything outside the cluster: one for Entra and the registries, one for the
//! machine's managed identities.

use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::{path::Path, time::Duration};

/// Bounds one try of one hop; the admission deadline usually ends the wait earlier.
const HOP_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Token replies are a few KiB; whatever is longer is not one.
const MAX_BODY: usize = 256 * 1024;

/// A status and a body, read whole.
pub struct Reply {
    /// The HTTP status.
    pub status: reqwest::StatusCode,
    /// `Retry-After` in seconds.
    pub retry_after: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// The client for Azure: HTTPS only, public roots plus `extra_ca`.
pub fn client(extra_ca: Option<&Path>) -> Result<reqwest::Client, String> {
    let mut roots: Vec<reqwest::Certificate> = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| reqwest::Certificate::from_der(der).ok())
        .collect();
    if let Some(path) = extra_ca {
        roots.extend(read_ca_bundle(path)?);
    }
    build(builder().https_only(true).tls_certs_only(roots))
}

/// The client for the machine's own endpoint of managed identities, which speaks plain HTTP and
/// refuses what comes through a proxy.
pub fn machine_client() -> Result<reqwest::Client, String> {
    build(builder().no_proxy().tls_certs_only([]))
}

/// No redirect is ever followed: it would carry a credential to a host nobody checked.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(HOP_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(90))
        .user_agent(concat!("acr-pull-webhook/", env!("CARGO_PKG_VERSION")))
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, String> {
    builder
        .build()
        .map_err(|e| format!("the HTTP client cannot be built: {e}"))
}

fn read_ca_bundle(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let shown = path.display();
    let certs = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("--extra-ca-file {shown}: {e}; give a readable file of PEM certificates"))?;
    if certs.is_empty() {
        return Err(format!("--extra-ca-file {shown} holds no PEM certificate"));
    }
    certs
        .iter()
        .map(|der| {
            reqwest::Certificate::from_der(der)
                .map_err(|e| format!("--extra-ca-file {shown} holds a certificate that cannot be read: {e}"))
        })
        .collect()
}

/// Sends and reads the whole reply, bounded. The error never holds the request's body.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Reply, String> {
    let mut response = request.send().await.map_err(describe)?;
    let status = response.status();
    let retry_after = response
        .headers()
        .get(reqwest::header::RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.trim().parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        if body.len() + chunk.len() > MAX_BODY {
            return Err(format!("the reply is longer than {MAX_BODY} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Reply {
        status,
        retry_after,
        body,
    })
}

/// The innermost cause says most ("connection refused", "invalid peer certificate").
fn describe(error: reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
