//! An attacker with many sockets.

use super::bystanders::Bystanders;
use futures::future::join_all;
use rustls::pki_types::ServerName;
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use testkit::{eventually, turns_every, webhook::Webhook};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Source addresses of other Pods.
const ADDRESSES: usize = 16;
/// The paths that an attacker guesses after reading the documentation.
pub const GUESSED_PATHS: [&str; 3] = [
    "/mutate",
    "/mutate/",
    "/mutate/0123456789abcdef0123456789abcdef01234567",
];

pub struct Attacker {
    pub webhook: SocketAddr,
    pub admin: SocketAddr,
    tls: TlsConnector,
    /// How many sockets have completed their part.
    done: AtomicUsize,
}

impl Attacker {
    pub fn of(webhook: &Webhook) -> Self {
        Self {
            webhook: webhook.address,
            admin: webhook.admin,
            tls: webhook.tls(),
            done: AtomicUsize::new(0),
        }
    }

    /// Opens the n-th socket. Every second one has the address of another Pod.
    pub async fn tcp(&self, n: usize, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if n.is_multiple_of(2) {
            let address = Ipv4Addr::new(127, 0, 66, 1 + (n / 2 % ADDRESSES) as u8);
            socket.bind((address, 0).into())?;
        }
        socket.connect(to).await
    }

    pub async fn tls(&self, n: usize) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = self.tcp(n, self.webhook).await?;
        self.tls
            .connect(ServerName::try_from("127.0.0.1").unwrap(), stream)
            .await
    }

    /// Makes an attempt with each of these sockets at the same time, and repeats each attempt at most once per `pause`.
    pub async fn attack(
        &self,
        sockets: usize,
        pause: Duration,
        attempt: impl AsyncFn(usize) -> std::io::Result<()>,
    ) {
        let attempt = &attempt;
        let all = (0..sockets).map(async |n| {
            let mut turns = turns_every(pause);
            loop {
                turns.tick().await;
                let _ = attempt(n).await;
            }
        });
        join_all(all).await;
    }

    /// Records that a socket has completed its part.
    pub fn count(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Starts the count of completed sockets again.
    pub fn reset(&self) {
        self.done.store(0, Ordering::Relaxed);
    }

    /// Runs an attack, and checks the bystanders as soon as this many sockets have completed their part.
    pub async fn check(&self, bystanders: &Bystanders<'_>, sockets: usize, attack: impl Future<Output = ()>) {
        let mut attack = Box::pin(attack);
        tokio::select! {
            () = &mut attack => panic!("the attack has ended"),
            () = eventually("the attack is complete", async || {
                (self.done.load(Ordering::Relaxed) >= sockets).then_some(())
            }) => {}
        }
        bystanders.check_during_endless(attack).await;
    }
}

/// Reads until the peer closes the connection.
pub async fn read_to_end(mut stream: impl AsyncReadExt + Unpin) {
    let _ = stream.read_to_end(&mut Vec::new()).await;
}
