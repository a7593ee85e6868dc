//! Why a request to a host outside the cluster received no response, and what a person can do about it.

use crate::problem::{Problem, Reason};
use hyper_util::client::proxy::matcher::Matcher;
use std::{error::Error, fmt, io, iter, sync::LazyLock};

/// The messages of getaddrinfo for a name that does not exist, or that has no address: of glibc, musl and macOS. The
/// standard library keeps the message only, and not the code.
const NAME_NOT_FOUND: [&str; 5] = [
    "Name or service not known",
    "No address associated with hostname",
    "Name does not resolve",
    "Name has no usable address",
    "nodename nor servname provided",
];
/// How the errors of hyper-util's `TunnelError` begin. The type itself is private.
const TUNNEL_ERROR: &str = "tunnel error: ";
/// hyper-util's error for a host that does not accept the connection.
const TCP_ERROR: &str = "tcp connect error";
/// hyper-util's error for the HTTP status 407.
const PROXY_AUTHENTICATION: &str = "proxy authorization required";

/// The proxies of `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, found as reqwest finds them.
static PROXIES: LazyLock<Matcher> = LazyLock::new(Matcher::from_system);

/// A request without a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendError {
    kind: Kind,
    /// The innermost cause, which is the most specific.
    cause: String,
    /// The host and the port of the proxy, without its credentials.
    proxy: Option<String>,
}

/// The step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// DNS has no address for this name.
    NameNotFound,
    /// DNS gave no answer.
    NameNotResolved,
    /// There is no TCP connection.
    NotConnected,
    /// The proxy demands credentials.
    ProxyAuthentication,
    /// The proxy did not connect to the host.
    Proxy,
    /// The certificate of the host is not trusted.
    UntrustedCertificate,
    /// There is a connection, and no complete response.
    NoResponse,
}

impl SendError {
    /// The error behind reqwest's error, which never contains the body of the request.
    pub(super) fn new(error: &reqwest::Error) -> Self {
        let uri = error.url().and_then(|url| url.as_str().parse::<http::Uri>().ok());
        let proxy = uri.and_then(|uri| PROXIES.intercept(&uri)).and_then(|proxy| {
            let uri = proxy.uri();
            let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}{port}", uri.host()?))
        });
        Self {
            kind: kind_of(error, proxy.is_some()),
            cause: cause_of(error),
            proxy,
        }
    }

    /// The response was not read to its end.
    pub(super) fn incomplete(cause: impl Into<String>) -> Self {
        Self {
            kind: Kind::NoResponse,
            cause: cause.into(),
            proxy: None,
        }
    }

    /// The problem of a call to a registry.
    pub fn of_registry(&self, hop: &str, host: &str) -> Problem {
        match self.kind {
            Kind::NameNotFound if self.proxy.is_none() => Problem::new(
                Reason::RegistryNotFound,
                format!(
                    "DNS has no registry {host}: correct spec.registry; a private endpoint needs a DNS record"
                ),
            )
            .quoting(&self.cause)
            .command("az acr list --query '[].loginServer' --output tsv")
            .unreachable(),
            _ => self.problem(hop, host, Reason::RegistryUnavailable),
        }
    }

    /// The problem of a call to this host. `hop` is what was requested, and `unavailable` the reason of a host that
    /// accepted the connection and did not respond.
    pub fn problem(&self, hop: &str, host: &str, unavailable: Reason) -> Problem {
        let through = self
            .proxy
            .as_ref()
            .map(|proxy| format!(" through proxy {proxy}"))
            .unwrap_or_default();
        let proxy = self.proxy.as_deref().unwrap_or("of HTTPS_PROXY");
        let (reason, fact) = match self.kind {
            Kind::NameNotFound | Kind::NameNotResolved => (
                Reason::EgressBlocked,
                format!(
                    "DNS does not resolve {host}{through} for {hop}: check the DNS of the webhook's Pods"
                ),
            ),
            Kind::NotConnected => (
                Reason::EgressBlocked,
                format!(
                    "no connection to {host}:443 for {hop}: check firewall and NetworkPolicy, or set a proxy"
                ),
            ),
            Kind::ProxyAuthentication => (
                Reason::ProxyFailed,
                format!(
                    "proxy {proxy} demands credentials (HTTP 407) to reach {host}:443 for {hop}: add them to HTTPS_PROXY"
                ),
            ),
            Kind::Proxy => (
                Reason::ProxyFailed,
                format!(
                    "proxy {proxy} did not connect to {host}:443 for {hop}: check proxy.https and its rules"
                ),
            ),
            Kind::UntrustedCertificate => (
                Reason::CertificateNotTrusted,
                format!(
                    "the certificate of {host}{through} is not trusted: if a proxy or firewall inspects TLS, set \
                     --extra-ca-file to its CA"
                ),
            ),
            Kind::NoResponse => (
                unavailable,
                format!("{host}:443 gave no complete response for {hop}{through}"),
            ),
        };
        Problem::new(reason, fact).quoting(&self.cause).unreachable()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Error for SendError {}

/// The error, the errors that caused it, and the errors inside of I/O errors, which `source` does not return.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| next_cause(*error))
}

fn next_cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn kind_of(error: &reqwest::Error, is_proxied: bool) -> Kind {
    let causes: Vec<String> = chain(error).map(ToString::to_string).collect();
    let contains = |text: &str| causes.iter().any(|cause| cause.contains(text));
    let is_untrusted = chain(error).any(|cause| {
        matches!(
            cause.downcast_ref::<rustls::Error>(),
            Some(rustls::Error::InvalidCertificate(_))
        )
    });
    if is_untrusted {
        Kind::UntrustedCertificate
    } else if contains(TUNNEL_ERROR) && contains(PROXY_AUTHENTICATION) {
        Kind::ProxyAuthentication
    } else if contains(TUNNEL_ERROR) || is_proxied && error.is_connect() && error.is_timeout() {
        Kind::Proxy
    } else if error.is_dns() && NAME_NOT_FOUND.iter().any(|text| contains(text)) {
        Kind::NameNotFound
    } else if error.is_dns() {
        Kind::NameNotResolved
    } else if contains(TCP_ERROR) || error.is_connect() && error.is_timeout() {
        Kind::NotConnected
    } else {
        Kind::NoResponse
    }
}

fn cause_of(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let innermost = chain(error).last();
    innermost.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests;
