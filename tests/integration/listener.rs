//! The clients that the webhook accepts, and connections that must not block it.

use futures::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reqwest::Identity;
use rustls::{ClientConnection, pki_types::ServerName};
use std::io::Write;
use tempfile::TempDir;
use testkit::{
    azure::Azure,
    control_plane,
    env::TestEnv,
    eventually,
    objects::{pull_secret_name, unnamed_pod},
    speed,
    webhook::{Webhook, write_certificate},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MIB: u64 = 1024 * 1024;

/// A webhook that no API server calls.
async fn start_alone(flags: &[String]) -> Webhook {
    let azure = Azure::without_tenants();
    Webhook::start(control_plane::shared(), &azure, flags).await
}

/// Begins a handshake that never continues.
async fn stalled(webhook: &Webhook) -> TcpStream {
    let mut stream = TcpStream::connect(webhook.address).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    stream
}

/// Begins a request whose headers never end.
async fn slow(webhook: &Webhook) -> TcpStream {
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = TcpStream::connect(webhook.address).await.unwrap();
    let mut tls = webhook.tls().connect(name, stream).await.unwrap();
    tls.write_all(b"POST /mutate HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        .await
        .unwrap();
    tls.flush().await.unwrap();
    // From now on, the test only waits for the end of the TCP stream.
    let (stream, _): (TcpStream, ClientConnection) = tls.into_inner();
    stream
}

#[testkit::test]
async fn stalled_handshakes_and_headers_are_closed_and_block_nothing() {
    let env = TestEnv::start().await;
    env.team_a.namespace.create_pod(&unnamed_pod("contoso")).await;
    let before = env.webhook.resident();
    let stalled = join_all((0..500).map(|_| stalled(&env.webhook))).await;
    let slow = join_all((0..200).map(|_| slow(&env.webhook))).await;
    for _ in 0..50 {
        pull_secret_name(&env.team_a.namespace.create_pod(&unnamed_pod("contoso")).await);
    }
    let grown = env.webhook.resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB more", grown / MIB);
    // A new connection is accepted too.
    assert_eq!(
        env.webhook
            .client()
            .get(env.webhook.url())
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
    let ended = join_all(stalled.into_iter().chain(slow).map(async |mut stream| {
        let end = tokio::time::timeout(speed::seconds(60), async {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        });
        end.await.is_ok()
    }));
    assert!(
        ended.await.into_iter().all(|ended| ended),
        "some connections are still open"
    );
}

/// An authority of client certificates.
fn new_authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A client certificate with these names, self-signed if there is no issuer.
fn identity(issuer: Option<&Issuer<'_, KeyPair>>, common_name: &str, names: &[&str]) -> Identity {
    let key = KeyPair::generate().unwrap();
    let names = names.iter().map(|name| (*name).to_owned());
    let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer).unwrap(),
        None => params.self_signed(&key).unwrap(),
    };
    Identity::from_pem((certificate.pem() + &key.serialize_pem()).as_bytes()).unwrap()
}

/// The status of a request with this client certificate, unless the connection fails.
async fn call(webhook: &Webhook, identity: Option<Identity>) -> Option<u16> {
    let ca = reqwest::Certificate::from_pem(webhook.ca_pem.as_bytes()).unwrap();
    let mut client = reqwest::Client::builder().no_proxy().tls_certs_only([ca]);
    if let Some(identity) = identity {
        client = client.identity(identity);
    }
    let reply = client.build().unwrap().get(webhook.url()).send().await;
    reply.map(|reply| reply.status().as_u16()).ok()
}

#[testkit::test]
async fn only_clients_with_a_certificate_of_the_authority_are_accepted() {
    let folder = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    let (authority, pem) = new_authority();
    let file = folder.path().join("client-ca.crt");
    std::fs::write(&file, pem).unwrap();
    let authority_flag = format!("--client-ca-file={}", file.display());
    let webhook = start_alone(std::slice::from_ref(&authority_flag)).await;
    let any = |issuer| Some(identity(issuer, "any client", &[]));
    assert_eq!(call(&webhook, None).await, None);
    assert_eq!(call(&webhook, any(None)).await, None);
    assert_eq!(call(&webhook, any(Some(&authority))).await, Some(404));
    // Kubelets send probes without a certificate.
    assert_eq!(webhook.admin_get("/readyz").await.0, 200);

    // The authority may also have signed certificates of kubelets.
    let names = "--client-names=kube-apiserver,api.example".to_owned();
    let webhook = start_alone(&[authority_flag, names]).await;
    let signed = Some(&authority);
    for (issuer, common_name, alternative, answer) in [
        (signed, "kube-apiserver", vec![], Some(404)),
        (signed, "other", vec!["x.example", "API.example"], Some(404)),
        (signed, "system:node:worker", vec!["worker.example"], None),
        (signed, "kube-apiserver.example", vec![], None),
        (None, "kube-apiserver", vec!["api.example"], None),
    ] {
        let identity = identity(issuer, common_name, &alternative);
        let actual = call(&webhook, Some(identity)).await;
        assert_eq!(actual, answer, "{common_name} {alternative:?}");
    }
    assert_eq!(call(&webhook, None).await, None);
}

#[testkit::test]
async fn changed_certificate_files_are_served_unless_they_are_invalid() {
    let mut webhook = start_alone(&[]).await;
    let answers = async |webhook: &Webhook| webhook.client().get(webhook.url()).send().await.ok();
    let folder = webhook.files.path().to_owned();
    std::fs::File::create(folder.join("tls.key"))
        .unwrap()
        .write_all(b"nonsense")
        .unwrap();
    webhook
        .wait_until_logged("the previous certificate stays in use")
        .await;
    assert!(answers(&webhook).await.is_some(), "the previous pair is served");
    webhook.ca_pem = write_certificate(&folder);
    eventually("the new pair is served", async || {
        answers(&webhook).await.map(drop)
    })
    .await;
    for line in webhook.log() {
        assert!(
            !line.contains("PRIVATE KEY") && !line.contains("nonsense"),
            "{line}"
        );
    }
}
