//! The HTTP client of the API server: kube's own stack, on a connection without Nagle's algorithm.

use super::{CONNECT_TIMEOUT, READ_TIMEOUT};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
};
use tower::{BoxError, ServiceBuilder};

/// The client for this configuration. It does not retry a call, because kube's retries take longer than any admission,
/// and it does not use a proxy, because HTTPS_PROXY is meant for Azure.
pub(super) fn build(config: &Config) -> Result<Client, kube::Error> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp_connector())?);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_read_timeout(Some(READ_TIMEOUT));
    connector.set_reset_reader_on_write(true);
    let http = HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

/// `Client::try_from` leaves Nagle's algorithm on, which holds a request back until the API server has acknowledged the
/// packet before it: by about 40 ms with delayed acknowledgements (<https://github.com/kube-rs/kube/issues/2056>).
fn tcp_connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    // TLS is added on top of this connector, so it is called with https addresses.
    connector.enforce_http(false);
    connector
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tower::Service;

    #[tokio::test]
    async fn connections_to_the_api_server_have_no_nagle_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let connection = tcp_connector().call(address.parse().unwrap()).await.unwrap();
        assert!(connection.inner().nodelay().unwrap());
    }
}
