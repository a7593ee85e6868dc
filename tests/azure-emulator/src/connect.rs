//! A CONNECT proxy for Azure's host names. Clients reach the emulator through it without root and without DNS.

use crate::{azure::Azure, cloud, connection};
use std::{
    io::{Error, ErrorKind, Result},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

const MAX_HEAD_BYTES: usize = 8 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers one connection to the proxy. After a valid CONNECT the emulator itself serves the connection.
pub async fn serve(mut stream: TcpStream, acceptor: TlsAcceptor, azure: Arc<Azure>) {
    let Ok(Ok(head)) = timeout(HEAD_TIMEOUT, read_head(&mut stream)).await else {
        return;
    };
    match target(&head) {
        Ok(host) if azure.world().is_unreachable(&host) => {
            // The client waits until it gives up, as if a firewall dropped its packets.
            let _ = stream.read_u8().await;
        }
        Ok(host) if azure.has_host(&host) => {
            let reply = b"HTTP/1.1 200 Connection Established\r\n\r\n";
            if stream.write_all(reply).await.is_ok() {
                connection::serve(stream, acceptor, azure).await;
            }
        }
        Ok(host) => {
            refuse(
                stream,
                &format!("{host} is neither a host of Azure nor of this world"),
            )
            .await
        }
        Err(cause) => refuse(stream, cause).await,
    }
}

/// Reads up to the empty line and not one byte further, because TLS follows.
async fn read_head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| Error::from(ErrorKind::InvalidData))
}

/// The host of `CONNECT host:443 HTTP/1.1`.
fn target(head: &str) -> std::result::Result<String, &'static str> {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next()) {
        (Some("CONNECT"), Some(authority)) if authority.ends_with(":443") => {
            Ok(cloud::normalized_host(authority))
        }
        (Some("CONNECT"), _) => Err("only port 443 is served"),
        _ => Err("this proxy supports only CONNECT, for https"),
    }
}

async fn refuse(mut stream: TcpStream, cause: &str) {
    let body = format!("azure-emulator: {cause}\n");
    let reply = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // An error means that the client has closed the connection.
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connect_to_port_443_has_a_target() {
        assert_eq!(
            target("CONNECT Contoso.azurecr.io:443 HTTP/1.1\r\n\r\n"),
            Ok("contoso.azurecr.io".to_owned())
        );
        for head in [
            "CONNECT contoso.azurecr.io:80 HTTP/1.1",
            "GET http://contoso.azurecr.io/ HTTP/1.1",
            "",
        ] {
            assert!(target(head).is_err(), "{head}");
        }
    }
}
