//! One connection: with TLS, directly or through the proxy, or without TLS for managed identities.

use crate::{azure::Azure, dispatch, endpoint::Listener};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves a TLS connection until it ends. Errors are not reported, because the client sees them.
pub async fn serve(stream: TcpStream, acceptor: TlsAcceptor, azure: Arc<Azure>) {
    let stream = ResettableStream::new(stream);
    let reset = stream.reset.clone();
    let Ok(Ok(tls)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        return;
    };
    serve_http(tls, Listener::Azure, azure, reset).await;
}

/// Serves a connection of the listener for managed identities, which has no TLS.
pub async fn serve_plain(stream: TcpStream, azure: Arc<Azure>) {
    let stream = ResettableStream::new(stream);
    let reset = stream.reset.clone();
    serve_http(stream, Listener::ManagedIdentity, azure, reset).await;
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    listener: Listener,
    azure: Arc<Azure>,
    reset: ResetSwitch,
) {
    let service =
        service_fn(move |request| dispatch::respond(azure.clone(), listener, request, reset.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // hyper returns an error when a client closes the connection early, which tests do on purpose.
    let _ = connection.await;
}

/// Ends the connection with a TCP reset instead of an orderly close. Clones share it.
#[derive(Clone, Default)]
pub struct ResetSwitch(Arc<AtomicBool>);

impl ResetSwitch {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct ResettableStream {
    stream: TcpStream,
    reset: ResetSwitch,
}

impl ResettableStream {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            reset: ResetSwitch::default(),
        }
    }
}

impl Drop for ResettableStream {
    fn drop(&mut self) {
        if self.reset.0.load(Ordering::Relaxed) {
            // Without lingering, closing sends RST. An error means that the socket is closed already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for ResettableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for ResettableStream {
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
