//! The accept loop: it limits connections, handshakes and request heads, and lets requests in progress finish at shutdown.
//!
//! Any client that reaches the port can open connections. The constants below bound the cost of an unknown client's
//! connection, and [`connections`](super::connections) chooses the connection to close when a limit is reached.

use super::{
    SecretPaths,
    connections::{ConnectionSlot, Connections},
};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

/// Maximum wait for a handshake permit. API servers usually wait no longer for a response.
const HANDSHAKE_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the handshake and the first head. An API server sends the head immediately after the handshake. On the admin
/// listener, the time for the whole exchange.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper counts the idle time between requests too. The API server closes an idle connection after 90 s. If the webhook
/// closed it first, a request could arrive on the closing connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Limit of a request head and of each read of a body. An API server's head has some hundred bytes; hyper accepts 100 headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Connections that have not finished after this time are closed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// rustls reads 4 KiB at a time, and most reviews are larger. With this buffer one system call reads such a review.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Avoids a busy loop when accepting fails, for example without free file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The phase of a listener's shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownPhase {
    /// The listener serves normally.
    Serving,
    /// Each connection ends with its next response. Closing an idle connection instead could lose a request, and a client does
    /// not repeat a POST.
    Draining,
    /// No connection is accepted.
    Stopped,
}

/// Reports the shutdown phase.
pub type ShutdownWatch = watch::Receiver<ShutdownPhase>;

/// The clients that a listener serves.
#[derive(Clone)]
pub enum ListenerKind {
    /// API servers, by TLS and only on these paths.
    Webhook(Arc<ServerConfig>, SecretPaths),
    /// Any client, by plain HTTP, with one exchange per connection.
    Admin,
}

/// Serves one connection.
#[derive(Clone)]
struct ConnectionHandler {
    kind: ListenerKind,
    router: Router,
    drain: ShutdownWatch,
}

/// Serves `router` until the phase is `Stopped`, then lets requests in progress finish.
pub async fn serve(
    listener: TcpListener,
    kind: ListenerKind,
    max_connections: usize,
    router: Router,
    mut drain: ShutdownWatch,
) {
    let connections = Connections::new(max_connections);
    let served = ConnectionHandler {
        kind,
        router,
        drain: drain.clone(),
    };
    loop {
        let accepted = async {
            let (stream, peer) = accept(&listener).await?;
            Some((stream, connections.admit(peer).await))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = drain.wait_for(|stage| *stage == ShutdownPhase::Stopped) => break,
        };
        match accepted {
            Some((stream, slot)) => {
                drop(tokio::spawn(served.clone().connection(stream, slot)));
                // Let the new task run first: it may prove its connection before the next one needs its slot.
                tokio::task::yield_now().await;
            }
            None => tokio::time::sleep(ACCEPT_RETRY_DELAY).await,
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, connections.all_ended()).await.is_err() {
        tracing::warn!(
            "connections were closed because they did not finish within {} s",
            DRAIN_TIMEOUT.as_secs()
        );
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Responses are small and awaited: send them without delay.
            let _ = stream.set_nodelay(true);
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

impl ConnectionHandler {
    async fn connection(self, stream: TcpStream, slot: ConnectionSlot) {
        let ListenerKind::Webhook(tls, _) = self.kind.clone() else {
            let until = Instant::now() + FIRST_REQUEST_TIMEOUT;
            return self.http(stream, slot, until).await;
        };
        let permit = timeout_at(slot.opened() + HANDSHAKE_QUEUE_TIMEOUT, slot.handshake_permit());
        let _permit = tokio::select! {
            permit = permit => match permit {
                Ok(permit) => permit,
                Err(_) => return tracing::debug!("a connection was closed: it waited too long for its handshake"),
            },
            () = slot.evicted() => return,
        };
        let until = Instant::now() + FIRST_REQUEST_TIMEOUT;
        // Allocated after the permit is granted, so that waiting connections hold no buffer.
        let stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        let handshake = timeout_at(until, TlsAcceptor::from(tls).accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = slot.evicted() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.http(stream, slot, until).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake timed out"),
        }
    }

    async fn http<S>(self, stream: S, slot: ConnectionSlot, until: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let slot = Arc::new(slot);
        let mut drain = self.drain.clone();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD_BYTES)
            .keep_alive(matches!(self.kind, ListenerKind::Webhook(..)));
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), self.service(slot.clone())));
        let mut ending = pin!(async {
            tokio::select! {
                () = slot.evicted() => {}
                _ = drain.wait_for(|stage| *stage == ShutdownPhase::Stopped) => {}
            }
        });
        let mut first = pin!(sleep_until(until));
        let mut awaits_request = true;
        let mut is_ending = false;
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut served => break ended,
                () = &mut ending, if !is_ending => {
                    if !slot.is_proven() && *self.drain.borrow() != ShutdownPhase::Stopped {
                        return tracing::debug!("a connection was closed to make room for another one");
                    }
                    served.as_mut().graceful_shutdown();
                    is_ending = true;
                }
                () = &mut first, if awaits_request => {
                    if !slot.is_proven() {
                        return tracing::debug!("a connection was closed: it sent no valid request in time");
                    }
                    awaits_request = false;
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers each request and marks the last response of a connection.
    fn service(
        &self,
        slot: Arc<ConnectionSlot>,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + use<>
    {
        let Self { kind, router, drain } = self.clone();
        let router = TowerToHyperService::new(router);
        service_fn(move |request: Request<Incoming>| {
            let is_accepted = match &kind {
                ListenerKind::Admin => true,
                ListenerKind::Webhook(_, paths) => {
                    let is_accepted = request.method() == Method::POST && paths.accept(request.uri().path());
                    if is_accepted {
                        slot.begin_request();
                    }
                    is_accepted
                }
            };
            let answer = is_accepted.then(|| router.call(request));
            let (slot, drain) = (slot.clone(), drain.clone());
            async move {
                let mut response = match answer {
                    Some(answer) => {
                        let response = answer.await?;
                        if slot.is_proven() {
                            slot.end_request();
                        }
                        response
                    }
                    None => not_found(),
                };
                if !is_accepted || *drain.borrow() != ShutdownPhase::Serving {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok(response)
            }
        })
    }
}

/// The same response for each path and method, so that it does not help to guess the path. The body is not read.
fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::from("only API servers may call this address\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

#[cfg(test)]
mod tests;
