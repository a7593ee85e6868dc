//! The CONNECT proxy serves Azure's names and the world's registries; all else it refuses. So does the TLS side.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::*;

/// Sends a request head to the proxy and returns the reply's first line.
fn ask(azure: &Azure, head: &str) -> String {
    let mut stream = TcpStream::connect(azure.emulator.proxy_addr().unwrap()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut bytes = [0; 512];
    let length = stream.read(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn connect(azure: &Azure, authority: &str) -> String {
    ask(
        azure,
        &format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"),
    )
}

#[test]
fn it_connects_to_azures_names_in_all_clouds() {
    let azure = Azure::start();
    for host in [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.partner.microsoftonline.cn",
        "login.microsoftonline.de",
        "contoso.azurecr.io",
        "contoso.azurecr.us",
        "contoso.azurecr.cn",
        "contoso.azurecr.de",
    ] {
        assert_eq!(
            connect(&azure, &format!("{host}:443")),
            "HTTP/1.1 200 Connection Established",
            "{host}"
        );
    }
}

#[test]
fn it_refuses_foreign_hosts_other_ports_and_plain_http() {
    let azure = Azure::start();
    for authority in [
        "evil.example.com:443",
        "contoso.azurecr.io.evil.example.com:443",
        "azurecr.io:443",
        "localhost:443",
        "127.0.0.1:443",
        "contoso.azurecr.io:22",
        "contoso.azurecr.io",
    ] {
        assert_eq!(
            connect(&azure, authority),
            "HTTP/1.1 403 Forbidden",
            "{authority}"
        );
    }
    assert_eq!(
        ask(&azure, "GET http://contoso.azurecr.io/v2/ HTTP/1.1\r\n\r\n"),
        "HTTP/1.1 403 Forbidden"
    );
}

#[tokio::test]
async fn a_registry_of_the_world_may_have_a_domain_of_its_own() {
    let azure = Azure::with(&world_yaml("http://127.0.0.1:9").replace(FABRIKAM, "images.fabrikam.example"));
    let reply = azure.get("https://images.fabrikam.example/v2/").await;
    assert_eq!(reply.status, 401);
    assert!(
        reply
            .header("www-authenticate")
            .contains("https://images.fabrikam.example/oauth2/token")
    );
}

#[tokio::test]
async fn a_registry_that_the_world_does_not_have_is_not_found() {
    let azure = Azure::start();
    let reply = azure.get("https://unknown.azurecr.io/v2/").await;
    assert_eq!(reply.status, 404);
    assert!(reply.text.contains("`unknown.azurecr.io`"));
    assert_eq!(azure.emulator.requests()[0].host, "unknown.azurecr.io");
}

#[tokio::test]
async fn clients_may_also_come_straight_by_dns() {
    let azure = Azure::start();
    let address = azure.emulator.https_addr();
    let ca = reqwest::Certificate::from_pem(azure.emulator.ca_pem().as_bytes()).unwrap();
    let client = |host: &str| {
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca.clone()])
            .resolve(host, address)
            .build()
            .unwrap()
    };
    let url = |host: &str| format!("https://{host}:{}/v2/", address.port());
    assert_eq!(
        client(CONTOSO)
            .get(url(CONTOSO))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        401
    );
    let foreign = "evil.example.com";
    assert!(
        client(foreign)
            .get(url(foreign))
            .send()
            .await
            .unwrap_err()
            .is_connect(),
        "no certificate for it"
    );
}
