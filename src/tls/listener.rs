//! The accept loop: a bound on connections, on handshakes and on slow headers, and a
//! drain that finishes what is in flight.

use axum::{
    Router,
    http::{HeaderValue, header},
};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper counts the idle time between requests too. The API server gives up an idle connection
/// after 90 s; were we to close first, a request could meet the closing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Whoever has connected and has not got a whole request across within this is not an API server.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// After this, connections that have not finished are cut.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// rustls asks for 4 KiB at a time, and most reviews have more: one call to the kernel reads such a one whole.
const READ_AHEAD: usize = 16 * 1024;
/// Out of file descriptors, say: do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How near a listener's end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not in sight.
    Open,
    /// Each connection ends with its next reply: one that we close while it is idle may meet a request, and a client
    /// does not repeat a POST.
    Leaving,
    /// No new connection is taken.
    Closed,
}

/// Tells the stage.
pub type Drain = watch::Receiver<Stage>;

/// Serves `router` until `drain` says closed, then finishes what is in flight. Without `tls`, in plain HTTP.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    max_connections: usize,
    router: Router,
    mut drain: Drain,
) {
    let acceptor = tls.map(TlsAcceptor::from);
    let connections = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            _ = drain.wait_for(|stage| *stage == Stage::Closed) => break,
        };
        let Some((stream, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (acceptor, router, watcher) = (acceptor.clone(), router.clone(), graceful.watcher());
        let drain = drain.clone();
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        tokio::spawn(async move {
            let _permit = permit;
            match acceptor {
                None => connection(stream, router, watcher, drain).await,
                Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, router, watcher, drain).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake did not end in time"),
                },
            }
        });
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            "connections were cut: they did not finish within {} s",
            DRAIN_TIMEOUT.as_secs()
        );
    }
}

async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => {
            // Answers are small and awaited: do not hold them back for more.
            let _ = stream.set_nodelay(true);
            Some((stream, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn connection<S>(stream: S, router: Router, watcher: Watcher, drain: Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = Arc::new(AtomicBool::new(false));
    let (service, seen) = (TowerToHyperService::new(router), asked.clone());
    let service = service_fn(move |request| {
        seen.store(true, Ordering::Relaxed);
        let (answer, drain) = (service.call(request), drain.clone());
        async move {
            let mut response = answer.await?;
            // The reply tells when it is the last one of its connection.
            if *drain.borrow() != Stage::Open {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(watcher.watch(served));
    let ended = match timeout(FIRST_REQUEST_TIMEOUT, &mut served).await {
        Ok(ended) => ended,
        Err(_) if asked.load(Ordering::Relaxed) => served.await,
        Err(_) => return tracing::debug!("a connection was ended that asked for nothing"),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn who_leaves_ends_each_connection_with_a_reply_and_goes_on_taking_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stage, drain) = watch::channel(Stage::Open);
        let router = Router::new().route("/", get(|| async { "here" }));
        let serving = tokio::spawn(serve(listener, None, 8, router, drain));
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

        let mut kept = TcpStream::connect(address).await.unwrap();
        kept.write_all(request).await.unwrap();
        let mut reply = vec![0; 1024];
        let length = kept.read(&mut reply).await.unwrap();
        assert!(!String::from_utf8_lossy(&reply[..length]).contains("connection: close"));

        stage.send_replace(Stage::Leaving);
        for mut connection in [kept, TcpStream::connect(address).await.unwrap()] {
            connection.write_all(request).await.unwrap();
            let mut reply = String::new();
            connection.read_to_string(&mut reply).await.unwrap();
            assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
            assert!(reply.contains("connection: close"), "{reply}");
        }

        stage.send_replace(Stage::Closed);
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}
