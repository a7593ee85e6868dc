//! The CONNECT proxy and the HTTPS listener serve Azure's host names and the registries of the world, and no others.

use crate::support::*;
use reqwest::{Certificate, Client};
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Sends a request head to the proxy and returns the connection.
fn send(azure: &Azure, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(azure.emulator.proxy_addr().unwrap()).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Sends a request head to the proxy and returns the first line of the response.
fn first_line(azure: &Azure, head: &str) -> String {
    let mut bytes = [0; 512];
    let length = send(azure, head).read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..length]);
    text.lines().next().unwrap_or_default().to_owned()
}

fn connect(authority: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

#[test]
fn the_proxy_connects_to_azures_hosts_in_all_clouds() {
    let azure = Azure::start();
    for host in [
        "login.microsoftonline.com",
        "login.microsoftonline.us",
        "login.chinacloudapi.cn",
        "login.microsoftonline.de",
        "contoso.azurecr.io",
        "contoso.azurecr.us",
        "contoso.azurecr.cn",
        "contoso.azurecr.de",
    ] {
        let line = first_line(&azure, &connect(&format!("{host}:443")));
        assert_eq!(line, "HTTP/1.1 200 Connection Established", "{host}");
    }
}

#[test]
fn the_proxy_refuses_other_hosts_other_ports_and_plain_http() {
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
        let line = first_line(&azure, &connect(authority));
        assert_eq!(line, "HTTP/1.1 403 Forbidden", "{authority}");
    }
    let line = first_line(&azure, "GET http://contoso.azurecr.io/v2/ HTTP/1.1\r\n\r\n");
    assert_eq!(line, "HTTP/1.1 403 Forbidden");
}

#[test]
fn the_proxy_never_answers_for_an_unreachable_host() {
    let azure = Azure::with(&(world() + "unreachableHosts: [login.chinacloudapi.cn]\n"));
    let mut stream = send(&azure, &connect("login.chinacloudapi.cn:443"));
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    let line = first_line(&azure, &connect("login.microsoftonline.com:443"));
    assert_eq!(line, "HTTP/1.1 200 Connection Established");
}

#[tokio::test]
async fn a_registry_may_have_a_custom_domain() {
    let azure = Azure::with(&world().replace(FABRIKAM, "images.fabrikam.example"));
    let reply = azure.get("https://images.fabrikam.example/v2/").await;
    assert_eq!(reply.status, 401);
    let challenge = reply.header("www-authenticate");
    assert!(
        challenge.contains("https://images.fabrikam.example/oauth2/token"),
        "{challenge}"
    );
}

#[tokio::test]
async fn a_registry_that_is_not_in_the_world_is_not_found() {
    let azure = Azure::start();
    let reply = azure.get("https://unknown.azurecr.io/v2/").await;
    assert_eq!(reply.status, 404);
    assert!(reply.text.contains("`unknown.azurecr.io`"), "{}", reply.text);
    assert_eq!(azure.emulator.requests()[0].host, "unknown.azurecr.io");
}

#[tokio::test]
async fn clients_may_connect_without_the_proxy() {
    let azure = Azure::start();
    let address = azure.emulator.https_addr();
    let ca = Certificate::from_pem(azure.emulator.ca_pem().as_bytes()).unwrap();
    let request = |host: &str| {
        let client = Client::builder().no_proxy().tls_certs_only([ca.clone()]);
        let client = client.resolve(host, address).build().unwrap();
        client.get(format!("https://{host}:{}/v2/", address.port()))
    };
    assert_eq!(Reply::of(request(CONTOSO)).await.status, 401);
    let error = request("evil.example.com").send().await.unwrap_err();
    assert!(error.is_connect(), "there is no certificate for it: {error:?}");
}
