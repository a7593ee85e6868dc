//! An HTTP proxy that knows CONNECT and Azure's names only: clients without root reach the emulator by it under those names.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::cloud;
use crate::connection;
use crate::state::State;

const MAX_HEAD_BYTES: usize = 8 * 1024;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers one proxy connection; after a good CONNECT it is the emulator itself that goes on with it.
pub(crate) async fn serve(mut stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let Ok(Ok(head)) = tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut stream)).await else {
        return;
    };
    match target(&head) {
        Ok(host) if state.faults.drops(&host) => {
            // Until the client gives up.
            let _ = stream.read_u8().await;
        }
        Ok(host) if state.answers_for(&host) => {
            if stream
                .write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")
                .await
                .is_ok()
            {
                connection::serve(stream, acceptor, state).await;
            }
        }
        Ok(host) => {
            refuse(
                stream,
                &format!("{host} is not a host of Azure's, nor one of this world"),
            )
            .await
        }
        Err(why) => refuse(stream, why).await,
    }
}

/// Reads up to the empty line and not one byte further: what follows is TLS.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The host of `CONNECT host:443 HTTP/1.1`.
fn target(head: &str) -> Result<String, &'static str> {
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    match (words.next(), words.next()) {
        (Some("CONNECT"), Some(authority)) if authority.ends_with(":443") => {
            Ok(cloud::normalized_host(authority))
        }
        (Some("CONNECT"), _) => Err("only port 443 is served"),
        _ => Err("this proxy knows CONNECT only, for https"),
    }
}

async fn refuse(mut stream: TcpStream, why: &str) {
    let body = format!("azure-emulator: {why}\n");
    let reply = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // A client that is gone does not need the refusal.
    let _ = stream.write_all(reply.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connect_to_port_443_names_a_target() {
        assert_eq!(
            target("CONNECT Contoso.azurecr.io:443 HTTP/1.1\r\n\r\n").unwrap(),
            "contoso.azurecr.io"
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
