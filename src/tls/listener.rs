//! The accept loop: a bound on connections, on handshakes and on heads, and a drain that finishes what is in flight.
//!
//! Whoever reaches a port may open connections, and no more: what a stranger's connection may cost is in the constants
//! below, and [`connections`](super::connections) says whose makes room when all places are taken.

use super::{
    Paths,
    connections::{Connections, Place},
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

/// From accepting a connection to its handshake's turn. No API server waits longer for an answer, as a rule.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// From the handshake's turn to the end of the first head. An API server sends it at once. On the admin listener, the time
/// of a whole exchange.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// hyper counts the idle time between requests too. The API server gives up an idle connection
/// after 90 s; were we to close first, a request could meet the closing.
const HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// A whole head, and each part of a body. An API server's head has some hundred bytes; hyper takes a hundred headers.
const MAX_HEAD: usize = 16 * 1024;
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

/// Who may come in.
#[derive(Clone)]
pub enum Door {
    /// API servers: by TLS, for these paths alone.
    Webhook(Arc<ServerConfig>, Paths),
    /// Anybody, in plain HTTP, for one exchange on each connection.
    Admin,
}

/// One listener's parts, for each of its connections.
#[derive(Clone)]
struct Served {
    door: Door,
    router: Router,
    drain: Drain,
}

/// Serves `router` until `drain` says closed, then finishes what is in flight.
pub async fn serve(
    listener: TcpListener,
    door: Door,
    max_connections: usize,
    router: Router,
    mut drain: Drain,
) {
    let connections = Connections::new(max_connections);
    let served = Served {
        door,
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
            _ = drain.wait_for(|stage| *stage == Stage::Closed) => break,
        };
        match accepted {
            Some((stream, place)) => {
                drop(tokio::spawn(served.clone().connection(stream, place)));
                // It may be answered before the next one is taken, for which it could have to make room.
                tokio::task::yield_now().await;
            }
            None => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    if timeout(DRAIN_TIMEOUT, connections.all_ended()).await.is_err() {
        tracing::warn!(
            "connections were cut: they did not finish within {} s",
            DRAIN_TIMEOUT.as_secs()
        );
    }
}

async fn accept(listener: &TcpListener) -> Option<(TcpStream, IpAddr)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Answers are small and awaited: do not hold them back for more.
            let _ = stream.set_nodelay(true);
            Some((stream, peer.ip()))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

// === impl Served ===

impl Served {
    async fn connection(self, stream: TcpStream, place: Place) {
        let Door::Webhook(tls, _) = self.door.clone() else {
            let until = Instant::now() + FIRST_REQUEST_TIMEOUT;
            return self.http(stream, place, until).await;
        };
        let turn = timeout_at(place.opened() + TURN_TIMEOUT, place.turn());
        let _turn = tokio::select! {
            turn = turn => match turn {
                Ok(turn) => turn,
                Err(_) => return tracing::debug!("a connection's turn did not come in time"),
            },
            () = place.evicted() => return,
        };
        let until = Instant::now() + FIRST_REQUEST_TIMEOUT;
        // Not before its turn: those that wait hold nothing.
        let stream = BufReader::with_capacity(READ_AHEAD, stream);
        let handshake = timeout_at(until, TlsAcceptor::from(tls).accept(stream));
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = place.evicted() => return,
        };
        match handshake {
            Ok(Ok(stream)) => self.http(stream, place, until).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake did not end in time"),
        }
    }

    async fn http<S>(self, stream: S, place: Place, until: Instant)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let place = Arc::new(place);
        let mut drain = self.drain.clone();
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .keep_alive(matches!(self.door, Door::Webhook(..)));
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), self.service(place.clone())));
        let mut ending = pin!(async {
            tokio::select! {
                () = place.evicted() => {}
                _ = drain.wait_for(|stage| *stage == Stage::Closed) => {}
            }
        });
        let mut first = pin!(sleep_until(until));
        let (mut waits, mut ends) = (true, false);
        let ended = loop {
            tokio::select! {
                biased;
                ended = &mut served => break ended,
                () = &mut ending, if !ends => {
                    if !place.is_proven() && *self.drain.borrow() != Stage::Closed {
                        return tracing::debug!("a connection made room for another");
                    }
                    served.as_mut().graceful_shutdown();
                    ends = true;
                }
                () = &mut first, if waits => {
                    if !place.is_proven() {
                        return tracing::debug!("a connection was ended that asked for nothing");
                    }
                    waits = false;
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers each request, and tells when the reply is the last one of its connection.
    fn service(
        &self,
        place: Arc<Place>,
    ) -> impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send> + use<>
    {
        let Self { door, router, drain } = self.clone();
        let router = TowerToHyperService::new(router);
        service_fn(move |request: Request<Incoming>| {
            let welcome = match &door {
                Door::Admin => true,
                Door::Webhook(_, paths) => {
                    let welcome = request.method() == Method::POST && paths.accept(request.uri().path());
                    if welcome {
                        place.begin();
                    }
                    welcome
                }
            };
            let answer = welcome.then(|| router.call(request));
            let (place, drain) = (place.clone(), drain.clone());
            async move {
                let mut response = match answer {
                    Some(answer) => {
                        let response = answer.await?;
                        if place.is_proven() {
                            place.end();
                        }
                        response
                    }
                    None => not_found(),
                };
                if !welcome || *drain.borrow() != Stage::Open {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok(response)
            }
        })
    }
}

/// The same for each path and method: nothing tells how near somebody was. The body is not read.
fn not_found() -> Response<Body> {
    let mut response = Response::new(Body::from("only API servers are served here\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

#[cfg(test)]
mod tests;
