//! The HTTP clients for services outside the cluster: one for Entra and the registries, one for the machine's managed
//! identity endpoint.

mod gates;
mod preconnect;
mod progress;
mod send_error;

pub use gates::{Caller, Gates};
pub use preconnect::Preconnector;
pub use progress::{Progress, Stage, deadline_exceeded};
pub use send_error::SendError;

use crate::{pem, start_error::StartError};
use jiff::Timestamp;
use reqwest::header::{DATE, RETRY_AFTER};
use rustls::{ClientConfig, RootCertStore};
use std::{path::Path, time::Duration};

/// Timeout of one attempt of one call. The admission deadline is usually earlier.
const HOP_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A token response has a few KiB, so a longer body is not a token response.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// A complete HTTP response.
pub struct Reply {
    /// The HTTP status.
    pub status: reqwest::StatusCode,
    /// The delay that `Retry-After` requests.
    pub retry_after: Option<Duration>,
    /// The `Date` header: the server's clock when it responded.
    pub date: Option<Timestamp>,
    /// The complete body.
    pub body: Vec<u8>,
}

/// The client for Azure: HTTPS only, public roots plus those of the file `extra_ca`.
pub fn client(extra_ca: Option<&Path>) -> Result<reqwest::Client, StartError> {
    let mut roots = public_roots();
    if let Some(path) = extra_ca {
        pem::add_root_certificates(&mut roots, "--extra-ca-file", path)?;
    }
    azure_client(roots)
}

/// The same client, with the content of the file.
pub fn client_trusting(extra_ca: Option<&[u8]>) -> Result<reqwest::Client, StartError> {
    let mut roots = public_roots();
    if let Some(text) = extra_ca {
        pem::add_certificates(&mut roots, "the file of --extra-ca-file", text)?;
    }
    azure_client(roots)
}

fn public_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

fn azure_client(roots: RootCertStore) -> Result<reqwest::Client, StartError> {
    let mut tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    build(builder().https_only(true).tls_backend_preconfigured(tls))
}

/// The client for the machine's managed identity endpoint, which uses plain HTTP and refuses proxied requests.
pub fn machine_client() -> Result<reqwest::Client, StartError> {
    build(builder().no_proxy().tls_certs_only([]))
}

/// Redirects are never followed: they could send a credential to an unchecked host.
fn builder() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(HOP_TIMEOUT)
        .pool_idle_timeout(Duration::from_secs(90))
        .user_agent(concat!("acr-pull-webhook/", env!("CARGO_PKG_VERSION")))
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, StartError> {
    builder
        .build()
        .map_err(StartError::failed("the HTTP client cannot be built"))
}

/// Sends a request and reads the response up to a size limit. The error never contains the request body.
pub async fn send(request: reqwest::RequestBuilder) -> Result<Reply, SendError> {
    let mut response = request.send().await.map_err(|error| SendError::new(&error))?;
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let date = header(DATE).and_then(http_date);
    let retry_after = header(RETRY_AFTER).and_then(|value| retry_delay(value, date));
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| SendError::new(&error))? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            let why = format!("the response is longer than {MAX_BODY_BYTES} bytes");
            return Err(SendError::incomplete(why));
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

/// Parses `Retry-After`: seconds, or a date by the server's clock (RFC 9110, section 10.2.3).
fn retry_delay(value: &str, date: Option<Timestamp>) -> Option<Duration> {
    let value = value.trim();
    let seconds = value.parse().ok().map(Duration::from_secs);
    seconds.or_else(|| Duration::try_from(http_date(value)?.duration_since(date?)).ok())
}

/// Parses an HTTP date in IMF-fixdate format (RFC 9110, section 5.6.7).
fn http_date(value: &str) -> Option<Timestamp> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value);
    date.ok()
}

/// `Retry-After` and `Date`, separated by a line feed.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(text: &str) {
    let (value, date) = text.split_once('\n').unwrap_or((text, ""));
    let _ = retry_delay(value, http_date(date));
}

#[cfg(any(test, fuzzing))]
impl Reply {
    /// A response with a status selected by the first byte.
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
    fn retry_after_is_parsed_as_seconds_or_as_a_date() {
        let date = http_date("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date, Timestamp::from_second(784_111_777).ok());
        let seconds = |value, date| retry_delay(value, date).map(|wait| wait.as_secs());
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
