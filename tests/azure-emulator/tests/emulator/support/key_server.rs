//! An HTTPS server that publishes signing keys as an API server does: to those who show a bearer token.

use std::sync::{Arc, Mutex};

use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;

/// Runs in the test's own runtime, and ends with it.
pub struct KeyServer {
    pub url: String,
    pub ca_pem: String,
    jwks: Arc<Mutex<String>>,
}

impl KeyServer {
    /// Publishes no key yet.
    pub async fn start(token: &'static str) -> Self {
        let jwks = Arc::new(Mutex::new(r#"{"keys": []}"#.to_owned()));
        let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!(
            "https://localhost:{}/openid/v1/jwks",
            listener.local_addr().unwrap().port()
        );
        let published = Arc::clone(&jwks);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let service = hyper::service::service_fn(|request| answer(request, token, &published));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
        });
        Self {
            url,
            ca_pem: certified.cert.pem(),
            jwks,
        }
    }

    pub fn publish(&self, jwks: &str) {
        jwks.clone_into(&mut self.jwks.lock().unwrap());
    }
}

async fn answer(
    request: Request<Incoming>,
    token: &str,
    jwks: &Mutex<String>,
) -> Result<Response<String>, hyper::Error> {
    let shown = request
        .headers()
        .get(AUTHORIZATION)
        .is_some_and(|value| *value == format!("Bearer {token}"));
    let mut response = Response::new(if shown {
        jwks.lock().unwrap().clone()
    } else {
        String::new()
    });
    if !shown {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}
