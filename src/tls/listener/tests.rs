use super::*;
use crate::tls::SecretPath;
use axum::Router;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{PrivateKeyDer, ServerName},
};
use std::{net::SocketAddr, time::Instant as Clock};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A webhook listener, and a client that trusts it.
struct Webhook {
    address: SocketAddr,
    path: String,
    phase: watch::Sender<ShutdownPhase>,
    serving: JoinHandle<()>,
    client: TlsConnector,
}

impl Webhook {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        let client = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();

        let paths = AcceptedPaths::default();
        let path = SecretPath::generate().unwrap();
        paths.set(vec![path.clone()]);
        let (phase, shutdown) = watch::channel(ShutdownPhase::Serving);
        let router = Router::new().fallback(|body: String| async move { format!("here {}", body.len()) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap(),
            path: path.url_path(),
            phase,
            serving: tokio::spawn(serve(
                listener,
                ListenerKind::Webhook(Arc::new(server), paths),
                8,
                router,
                shutdown,
            )),
            client: TlsConnector::from(Arc::new(client)),
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.client.connect(name, stream).await.unwrap()
    }

    fn request(&self) -> String {
        let path = &self.path;
        format!("POST {path}?timeout=10s HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    }
}

/// Reads until the connection is closed.
async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut reply = Vec::new();
    // A connection that is closed before everything is read ends with an error.
    let read = timeout(Duration::from_secs(60), stream.read_to_end(&mut reply)).await;
    drop(read.expect("the connection is closed"));
    String::from_utf8(reply).unwrap()
}

#[tokio::test]
async fn a_draining_listener_closes_connections_after_a_reply_and_accepts_new_ones() {
    let webhook = Webhook::start().await;
    let mut open = webhook.connect().await;
    open.write_all(webhook.request().as_bytes()).await.unwrap();
    let mut reply = vec![0; 1024];
    let length = open.read(&mut reply).await.unwrap();
    assert!(!String::from_utf8_lossy(&reply[..length]).contains("connection: close"));

    webhook.phase.send_replace(ShutdownPhase::Draining);
    for mut connection in [open, webhook.connect().await] {
        connection.write_all(webhook.request().as_bytes()).await.unwrap();
        let reply = rest(connection).await;
        assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
        assert!(reply.contains("connection: close"), "{reply}");
    }

    webhook.phase.send_replace(ShutdownPhase::Stopped);
    webhook.serving.await.unwrap();
    assert!(TcpStream::connect(webhook.address).await.is_err());
}

#[tokio::test]
async fn anything_but_a_post_to_the_path_gets_404_and_its_body_is_not_read() {
    let webhook = Webhook::start().await;
    let path = webhook.path.clone();
    for line in [
        format!("GET {path}"),
        format!("PUT {path}"),
        format!("POST {path}0"),
        format!("POST {}", &path[..path.len() - 1]),
        "POST /mutate".to_owned(),
        "POST /".to_owned(),
        "OPTIONS *".to_owned(),
    ] {
        let mut connection = webhook.connect().await;
        let head = format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-length: 3145728\r\n\r\nx");
        connection.write_all(head.as_bytes()).await.unwrap();
        let reply = rest(connection).await;
        assert!(reply.starts_with("HTTP/1.1 404"), "{line}: {reply}");
        assert!(reply.contains("connection: close"), "{line}: {reply}");
        assert!(!reply.contains(&path), "{reply}");
    }
}

#[tokio::test]
async fn the_size_and_the_time_of_a_request_head_are_limited() {
    let webhook = Webhook::start().await;
    let mut long = webhook.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nx: {}",
        webhook.path,
        "x".repeat(2 * MAX_HEAD_BYTES)
    );
    let _ = long.write_all(head.as_bytes()).await;
    let reply = rest(long).await;
    assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 431"), "{reply}");

    let began = Clock::now();
    let mut slow = webhook.connect().await;
    slow.write_all(b"POST / HTTP/1.1\r\nx: ").await.unwrap();
    let silent = webhook.connect().await;
    let no_handshake = TcpStream::connect(webhook.address).await.unwrap();
    assert_eq!(
        rest(slow).await + &rest(silent).await + &rest(no_handshake).await,
        ""
    );
    let took = began.elapsed();
    assert!(took >= FIRST_REQUEST_TIMEOUT, "{took:?}");
}

/// The clock stands still while bytes are on the way, and then moves on by itself to the next timer.
#[tokio::test]
async fn an_idle_connection_and_one_with_half_a_head_are_closed() {
    let webhook = Webhook::start().await;
    let mut connections = [webhook.connect().await, webhook.connect().await];
    for connection in &mut connections {
        connection.write_all(webhook.request().as_bytes()).await.unwrap();
        let length = connection.read(&mut [0; 1024]).await.unwrap();
        assert_ne!(length, 0);
    }
    connections[1].write_all(b"POST / HTTP/1.1\r\nx: ").await.unwrap();
    tokio::time::pause();
    let began = Instant::now();
    for mut connection in connections {
        let rest = timeout(
            IDLE_TIMEOUT + IDLE_CHECK_INTERVAL,
            connection.read_to_end(&mut Vec::new()),
        )
        .await;
        assert!(rest.is_ok(), "the connection is closed");
        let took = began.elapsed();
        assert!(took >= IDLE_TIMEOUT - IDLE_CHECK_INTERVAL, "{took:?}");
    }
}

#[tokio::test]
async fn an_admin_connection_serves_one_exchange_within_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_phase, shutdown) = watch::channel(ShutdownPhase::Serving);
    let router = Router::new().fallback(|| async { "here" });
    tokio::spawn(serve(listener, ListenerKind::Admin, 2, router, shutdown));
    let mut one = TcpStream::connect(address).await.unwrap();
    one.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let reply = rest(one).await;
    assert!(
        reply.contains("connection: close") && reply.ends_with("here"),
        "{reply}"
    );
    // A new connection is served although idle connections have reached the limit.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(rest(probe).await.ends_with("here"));
    }
    for silent in silent {
        assert_eq!(rest(silent).await, "");
    }
}
