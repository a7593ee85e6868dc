//! The accept loop. It limits connections, handshakes and request heads, and finishes requests in flight at shutdown.
//!
//! Anybody who reaches the port can open connections. The constants below limit what such a connection costs, and
//! [`connections`](super::connections) chooses the connection to close when the limit is reached.

use super::{
    AcceptedPaths,
    connections::{ConnectionGuard, Connections},
};
use axum::{
    body::Body,
    http::{HeaderValue, Method, Request, Response, StatusCode, header},
};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use rustls::ServerConfig;
use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::TlsAcceptor;

/// From accepting a connection to the start of its handshake. API servers usually do not wait longer for a response.
const HANDSHAKE_START_TIMEOUT: Duration = Duration::from_secs(10);
/// From the start of the handshake to the end of the first request head. An API server sends it immediately. On the
/// admin listener, this limits the whole exchange.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// From a response to the end of the next request head. The API server closes an idle connection after 90 s. It must
/// close first: a request could arrive while the webhook closes the connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(110);
/// How often [`IDLE_TIMEOUT`] is checked for all connections, so that none is idle for more than 120 s. A timer for each
/// connection would cost more, because each request would restart it.
const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The maximum size of a request head and of each part of a body. An API server's head has some hundred bytes. hyper
/// accepts 100 headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Connections that have not finished after this time are aborted.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// rustls reads 4 KiB at a time, and most reviews are larger. With this buffer, one system call reads a whole review.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// The wait after an error of `accept`, for example because there are no free file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The shutdown phase of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownPhase {
    /// The listener is not shutting down.
    Serving,
    /// Each connection is closed after its next response. An idle connection is not closed, because a request may
    /// arrive at the same time, and clients do not retry a POST.
    Draining,
    /// New connections are not accepted, and each connection is closed after its request in flight.
    Stopped,
}

/// Receives the shutdown phase.
pub type ShutdownWatch = watch::Receiver<ShutdownPhase>;

/// The kind of a listener.
#[derive(Clone)]
pub enum ListenerKind {
    /// TLS, for API servers, which know the accepted paths.
    Webhook(Arc<ServerConfig>, AcceptedPaths),
    /// Plain HTTP, for anybody, with one exchange per connection.
    Admin,
}

/// Answers the requests of a listener: a handler or a router of axum.
pub trait HttpService:
    tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> HttpService for S where
    S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves `service` until `shutdown` is [`ShutdownPhase::Stopped`], then finishes the requests in flight.
pub async fn serve(
    listener: TcpListener,
    kind: ListenerKind,
    max_connections: usize,
    service: impl HttpService,
    mut shutdown: ShutdownWatch,
) {
    let connections = Connections::new(max_connections);
    let server = ConnectionServer {
        kind,
        service,
        shutdown: shutdown.clone(),
    };
    tokio::select! {
        () = server.accept_connections(&listener, &connections) => {}
        () = close_idle_connections(&connections) => {}
        _ = shutdown.wait_for(|phase| *phase == ShutdownPhase::Stopped) => {}
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, connections.stop()).await.is_err() {
        tracing::warn!(
            "connections were aborted because they did not finish within {} s",
            DRAIN_TIMEOUT.as_secs()
        );
    }
}

async fn close_idle_connections(connections: &Connections) {
    let mut checks = tokio::time::interval(IDLE_CHECK_INTERVAL);
    loop {
        checks.tick().await;
        connections.close_idle(IDLE_TIMEOUT);
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Responses are small and the client waits for them, so they are sent without delay.
            let _ = stream.set_nodelay(true);
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "accepting a connection failed");
            None
        }
    }
}

/// Serves each connection of a listener.
#[derive(Clone)]
struct ConnectionServer<H> {
    kind: ListenerKind,
    service: H,
    shutdown: ShutdownWatch,
}

impl<H: HttpService> ConnectionServer<H> {
    async fn accept_connections(&self, listener: &TcpListener, connections: &Connections) {
        loop {
            let Some((stream, peer)) = accept(listener).await else {
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            };
            let connection = connections.admit(peer).await;
            drop(tokio::spawn(self.clone().serve_connection(stream, connection)));
            // Let it finish if it can, before the next connection may evict it.
            tokio::task::yield_now().await;
        }
    }

    async fn serve_connection(self, stream: TcpStream, connection: ConnectionGuard) {
        let ListenerKind::Webhook(tls, _) = self.kind.clone() else {
            let deadline = Instant::now() + FIRST_REQUEST_TIMEOUT;
            return self.serve_http(stream, connection, deadline).await;
        };
        let permit = timeout_at(
            connection.opened() + HANDSHAKE_START_TIMEOUT,
            connection.handshake_permit(),
        );
        let _permit = tokio::select! {
            permit = permit => match permit {
                Ok(permit) => permit,
                Err(_) => return tracing::debug!("a connection waited too long for its handshake"),
            },
            () = connection.evicted() => return,
        };
        let deadline = Instant::now() + FIRST_REQUEST_TIMEOUT;
        // Allocated only now, so that waiting connections hold no memory.
        let stream = BufReader::with_capacity(READ_BUFFER_BYTES, stream);
        let handshake = timeout_at(deadline, TlsAcceptor::from(tls).accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = connection.evicted() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.serve_http(stream, connection, deadline).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake timed out"),
        }
    }

    async fn serve_http<S>(self, stream: S, connection: ConnectionGuard, deadline: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let open = Arc::new(OpenConnection {
            guard: connection,
            shutdown: self.shutdown.clone(),
        });
        let connection = &open.guard;
        let mut http = http1::Builder::new();
        http.max_buf_size(MAX_HEAD_BYTES)
            .keep_alive(matches!(self.kind, ListenerKind::Webhook(..)));
        let mut served =
            pin!(http.serve_connection(TokioIo::new(stream), self.connection_service(open.clone())));
        let mut must_close = pin!(connection.must_close());
        let mut first_request_timeout = pin!(sleep_until(deadline));
        let mut is_closing = false;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut served => break result,
                () = &mut must_close, if !is_closing => {
                    if !connection.is_proven() && connection.is_evicted() {
                        return tracing::debug!("a connection was closed to admit another one");
                    }
                    served.as_mut().graceful_shutdown();
                    is_closing = true;
                }
                () = &mut first_request_timeout, if !connection.is_proven() => {
                    // Its first request may have arrived with this wake-up.
                    if !connection.is_proven() {
                        return tracing::debug!("a connection was closed because it sent no accepted request in time");
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "a connection failed");
        }
    }

    /// Answers each request. A response that is the last one of its connection says so.
    fn connection_service(
        &self,
        connection: Arc<OpenConnection>,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + use<H>
    {
        let Self { kind, service, .. } = self.clone();
        let service = TowerToHyperService::new(service);
        service_fn(move |request: Request<Incoming>| {
            let is_accepted = match &kind {
                ListenerKind::Admin => true,
                ListenerKind::Webhook(_, paths) => {
                    let is_accepted = request.method() == Method::POST && paths.accept(request.uri().path());
                    if is_accepted {
                        connection.guard.start_request();
                    }
                    is_accepted
                }
            };
            let response = is_accepted.then(|| service.call(request));
            let connection = connection.clone();
            async move {
                let mut response = match response {
                    Some(response) => {
                        let response = response.await?;
                        if connection.guard.is_proven() {
                            connection.guard.finish_request();
                        }
                        response
                    }
                    None => not_found(),
                };
                if !is_accepted || *connection.shutdown.borrow() != ShutdownPhase::Serving {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok(response)
            }
        })
    }
}

/// What the requests of a connection share.
struct OpenConnection {
    guard: ConnectionGuard,
    shutdown: ShutdownWatch,
}

/// The same response for every path and method, so that it does not show whether a guess was close. The body is not
/// read.
fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::from("this listener only serves API servers\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

#[cfg(test)]
mod tests;
