//! The HTTP clients for everything outside the cluster: one for Entra and the registries, one for the
//! machine's managed identities.

mod ahead;
mod gates;

pub use ahead::Ahead;
pub use gates::{Caller, Gates, Place, Stage, late};

use crate::pem;
use jiff::Timestamp;
use reqwest::header::{DATE, RETRY_AFTER};
use rustls::{ClientConfig, RootCertStore};
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
    /// How long `Retry-After` asks to wait.
    pub retry_after: Option<Duration>,
    /// `Date`: the other side's clock when it answered.
    pub date: Option<Timestamp>,
    /// The body.
    pub body: Vec<u8>,
}

/// The client for Azure: HTTPS only, public roots plus `extra_ca`.
pub fn client(extra_ca: Option<&Path>) -> Result<reqwest::Client, String> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    if let Some(path) = extra_ca {
        pem::add_root_certificates(&mut roots, "--extra-ca-file", path)?;
    }
    let mut tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    build(builder().https_only(true).tls_backend_preconfigured(tls))
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

/// Sends and reads the whole reply, bounded. The error never holds the request's body.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Reply, String> {
    let mut response = request.send().await.map_err(describe)?;
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let date = header(DATE).and_then(http_date);
    let retry_after = header(RETRY_AFTER).and_then(|value| wait(value, date));
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
        date,
        body,
    })
}

/// `Retry-After`: seconds, or a date by the clock of whoever says it (RFC 9110, section 10.2.3).
fn wait(value: &str, date: Option<Timestamp>) -> Option<Duration> {
    let value = value.trim();
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| Duration::try_from(http_date(value)?.duration_since(date?)).ok())
}

/// An HTTP date in the form that everybody sends (RFC 9110, section 5.6.7).
fn http_date(value: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value);
    date.ok()
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

/// `Retry-After` and `Date`, separated by a line's end.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) {
    let (value, date) = text.split_once('\n').unwrap_or((text, ""));
    let _ = wait(value, http_date(date));
}

#[cfg(any(test, fuzzing))]
impl Reply {
    /// A reply whose status the first byte chooses.
    pub(crate) fn fuzz(data: &[u8]) -> Option<Self> {
        const STATUSES: [u16; 12] = [200, 307, 400, 401, 403, 404, 408, 429, 500, 502, 503, 504];
        let (first, body) = data.split_first()?;
        let status = STATUSES[usize::from(*first) % STATUSES.len()];
        Some(Self {
            status: reqwest::StatusCode::from_u16(status).ok()?,
            retry_after: None,
            date: None,
            body: body.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_otherwise_not_at_all() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Timestamp::from_second(784_111_777).ok());
        let seconds = |value, date| wait(value, date).map(|wait| wait.as_secs());
        assert_eq!(seconds(" 60 ", None), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT", date), Some(60));
        for (value, date) in [
            ("Sun, 06 Nov 1994 08:50:37 GMT", None),
            ("Sun, 06 Nov 1994 08:48:37 GMT", date),
            ("-1", date),
            ("soon", date),
            ("", date),
        ] {
            assert_eq!(seconds(value, date), None, "{value:?}");
        }
    }
}
