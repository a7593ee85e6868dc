use super::*;
use crate::problem::MAX_SENTENCE_BYTES;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

const HOST: &str = "contoso.azurecr.io";

/// A resolver with one answer for every name.
struct OneAnswer(Result<SocketAddr, &'static str>);

impl Resolve for OneAnswer {
    fn resolve(&self, _: Name) -> Resolving {
        let answer = self.0.map_err(|text| {
            // As the standard library reports a failure of getaddrinfo.
            Box::new(io::Error::other(format!(
                "failed to lookup address information: {text}"
            )))
            .into()
        });
        Box::pin(async move { answer.map(|address| Box::new(iter::once(address)) as Addrs) })
    }
}

fn client(answer: Result<SocketAddr, &'static str>) -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([])
        .dns_resolver(Arc::new(OneAnswer(answer)))
}

/// The error of a request to this port.
async fn error(client: reqwest::ClientBuilder, port: u16) -> SendError {
    let request = client.build().unwrap().get(format!("https://{HOST}:{port}/v2/"));
    SendError::new(&request.send().await.unwrap_err())
}

/// A server that answers every connection with these bytes.
async fn server(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(answer).await;
        }
    });
    address
}

/// An address on which nobody listens.
async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_no_registry() {
    for text in NAME_NOT_FOUND {
        let error = error(client(Err(text)), 443).await;
        assert_eq!(error.kind, Kind::NameNotFound, "{error:?}");
        let problem = error.of_registry("the token exchange", HOST);
        assert_eq!(problem.reason, Reason::RegistryNotFound);
        assert!(!problem.is_transient() && problem.unreachable, "{problem}");
        assert!(
            problem.fact.contains(HOST) && problem.command.is_some(),
            "{problem}"
        );
        // A missing name of Entra is a failure of the cluster's DNS.
        let problem = error.problem("the token", HOST, Reason::EntraUnavailable);
        assert_eq!(problem.reason, Reason::EgressBlocked);
    }
}

#[tokio::test]
async fn a_failure_of_dns_is_not_a_missing_registry() {
    let error = error(client(Err("Temporary failure in name resolution")), 443).await;
    assert_eq!(error.kind, Kind::NameNotResolved, "{error:?}");
    let problem = error.of_registry("the token exchange", HOST);
    assert_eq!(problem.reason, Reason::EgressBlocked);
    assert!(
        problem.is_transient() && problem.fact.contains("DNS"),
        "{problem}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_reported_with_host_port_and_hop() {
    let address = closed_port().await;
    let error = error(client(Ok(address)), address.port()).await;
    assert_eq!(error.kind, Kind::NotConnected, "{error:?}");
    let text = error.of_registry("the token exchange", HOST).to_string();
    assert!(
        text.starts_with("EgressBlocked: no connection to contoso.azurecr.io:443 for the token exchange")
    );
    assert!(text.contains("refused"), "{text}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_has_not_blocked_the_connection() {
    let address = server(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    let error = error(client(Ok(address)), address.port()).await;
    assert_eq!(error.kind, Kind::NoResponse, "{error:?}");
}

#[tokio::test]
async fn a_proxy_is_named_without_its_credentials() {
    for (answer, kind, part) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            Kind::ProxyAuthentication,
            "HTTP 407",
        ),
        (
            &b"HTTP/1.1 403 Forbidden\r\n\r\n"[..],
            Kind::Proxy,
            "did not connect",
        ),
    ] {
        let address = server(answer).await;
        let proxy = reqwest::Proxy::all(format!("http://me:hunter2@{address}")).unwrap();
        let client = client(Err("unused")).proxy(proxy);
        let error = error(client, 443).await;
        assert_eq!(error.kind, kind, "{error:?}");
        let error = SendError {
            proxy: Some(address.to_string()),
            ..error
        };
        let problem = error.of_registry("the token exchange", HOST);
        assert_eq!(problem.reason, Reason::ProxyFailed);
        for part in [part, HOST, &address.to_string()] {
            assert!(problem.fact.contains(part), "{part}: {problem}");
        }
        assert!(!problem.to_string().contains("hunter2"), "{problem}");
    }
}

#[test]
fn the_proxy_of_the_environment_is_printed_without_credentials() {
    let matcher = Matcher::builder()
        .all("http://me:hunter2@proxy.example:3128")
        .build();
    let proxy = matcher
        .intercept(&http::Uri::from_static("https://contoso.azurecr.io/v2/"))
        .unwrap();
    assert_eq!(proxy.uri().host(), Some("proxy.example"));
    assert_eq!(proxy.uri().port_u16(), Some(3128));
}

#[tokio::test]
async fn an_unknown_issuer_asks_for_the_ca_of_the_proxy() {
    let key = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let chain = vec![key.cert.der().clone()];
    let der = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, der)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let _ = acceptor.accept(connection).await;
        }
    });
    let error = error(client(Ok(address)), address.port()).await;
    assert_eq!(error.kind, Kind::UntrustedCertificate, "{error:?}");
    let problem = error.of_registry("the token exchange", HOST);
    assert_eq!(problem.reason, Reason::CertificateNotTrusted);
    let text = problem.to_string();
    assert!(
        text.contains("--extra-ca-file") && text.contains("UnknownIssuer"),
        "{text}"
    );
}

#[test]
fn each_failure_fits_into_a_sentence() {
    let host = format!("{}.azurecr.io", "r".repeat(50));
    for kind in [
        Kind::NameNotFound,
        Kind::NameNotResolved,
        Kind::NotConnected,
        Kind::ProxyAuthentication,
        Kind::Proxy,
        Kind::UntrustedCertificate,
        Kind::NoResponse,
    ] {
        let error = SendError {
            kind,
            cause: "x".repeat(500),
            proxy: None,
        };
        let problem = error.of_registry("the token exchange", &host);
        let text = problem.to_string();
        assert!(text.len() <= MAX_SENTENCE_BYTES && text.contains(&host), "{text}");
        assert!(text.contains(&problem.fact), "the fact is not shortened: {text}");
    }
}
