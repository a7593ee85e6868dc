//! One connection: by TLS, straight or through the proxy, or plain where the managed identities are.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::dispatch::dispatch;
use crate::endpoint::Listener;
use crate::state::State;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Once pulled, the connection ends with a TCP reset instead of an orderly close.
#[derive(Clone, Default)]
pub(crate) struct ResetSwitch(Arc<AtomicBool>);

struct Resettable {
    stream: TcpStream,
    switch: ResetSwitch,
}

/// Serves a TLS connection until it ends. What goes wrong on it is the client's to notice.
pub(crate) async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) {
    let (stream, switch) = resettable(stream);
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    serve_http(tls, Listener::Azure, state, switch).await;
}

/// The same without TLS, for the metadata listener.
pub(crate) async fn serve_plain(stream: TcpStream, state: Arc<State>) {
    let (stream, switch) = resettable(stream);
    serve_http(stream, Listener::Metadata, state, switch).await;
}

fn resettable(stream: TcpStream) -> (Resettable, ResetSwitch) {
    let switch = ResetSwitch::default();
    let stream = Resettable {
        stream,
        switch: switch.clone(),
    };
    (stream, switch)
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    listener: Listener,
    state: Arc<State>,
    switch: ResetSwitch,
) {
    let service = service_fn(move |request| dispatch(Arc::clone(&state), listener, request, switch.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that leaves in the middle is an error to hyper, and everyday life here.
    let _ = connection.await;
}

// === impl ResetSwitch ===

impl ResetSwitch {
    pub(crate) fn pull(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// === impl Resettable ===

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.switch.0.load(Ordering::Relaxed) {
            // Without lingering, closing sends RST. If the socket is gone already there is nothing to reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
