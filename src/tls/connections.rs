//! All connections of one listener. At the limit, one is closed to admit a new one.
//!
//! A connection is *proven* after a request for a secret path: only API servers know such a path. A stranger's
//! connection is never proven, and strangers' connections are closed first.

mod victim;

use futures::task::AtomicWaker;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use victim::{Activity, Candidate, ReachedLimit, choose_victim};

/// The maximum number of unproven connections. Each may take about 120 KiB, mostly for an incomplete handshake message.
/// An API server's connection is unproven for some milliseconds.
pub const MAX_UNPROVEN: usize = 128;
/// The maximum number of concurrent handshakes and first requests of one unproven address. Further connections wait,
/// without TLS state.
const MAX_HANDSHAKES_PER_PEER: usize = 64;
/// An address stays proven for this time after its last proven connection. An API server restarts faster.
const PROVEN_PEER_TTL: Duration = Duration::from_secs(600);
/// An API server's connection is proven within this time, unless the machine is very busy.
const UNPROVEN_GRACE: Duration = Duration::from_secs(1);
/// A connection that waits for admission checks at this interval whether an unproven connection has exceeded
/// [`UNPROVEN_GRACE`].
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Special values of `Connection::activity`.
const NO_REQUEST_YET: u64 = u64::MAX;
const REQUEST_IN_FLIGHT: u64 = u64::MAX - 1;

/// The connections of a listener. Clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    max: usize,
    started: Instant,
    state: Mutex<State>,
    /// Notified when a connection has ended or is proven, and when one becomes idle while another one waits for admission.
    changed: Notify,
    /// Whether a connection waits for admission. An outdated value only delays that admission by [`RECHECK_INTERVAL`].
    is_full: AtomicBool,
}

impl Connections {
    /// At most `max` concurrent connections.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Inner {
            max,
            started: Instant::now(),
            state: Mutex::default(),
            changed: Notify::new(),
            is_full: AtomicBool::new(false),
        }))
    }

    /// Registers a new connection. At the limit, another connection is closed. If none may be closed, for example
    /// because all have a request in flight, this waits.
    pub async fn admit(&self, peer: IpAddr) -> ConnectionGuard {
        // An IPv6 listener sees IPv4 addresses in their mapped form.
        let peer = peer.to_canonical();
        loop {
            let changed = self.0.changed.notified();
            let admitted = self.try_admit(peer);
            self.0.is_full.store(admitted.is_none(), Ordering::Relaxed);
            if let Some(connection) = admitted {
                return connection;
            }
            let _ = timeout(RECHECK_INTERVAL, changed).await;
        }
    }

    fn try_admit(&self, peer: IpAddr) -> Option<ConnectionGuard> {
        let now = Instant::now();
        let mut state = self.0.state.lock();
        let reached = if state.open.len() >= self.0.max {
            Some(ReachedLimit::All)
        } else if state.unproven >= MAX_UNPROVEN {
            Some(ReachedLimit::Unproven)
        } else {
            None
        };
        if let Some(reached) = reached {
            let candidates: Vec<_> = state.candidates(now).collect();
            let victim = choose_victim(reached, &candidates, now)?;
            if let Some(connection) = state.remove(victim, now) {
                connection.evicted.store(true, Ordering::Relaxed);
                connection.task.wake();
            }
        }
        let connection = Arc::new(Connection {
            peer,
            opened: now,
            activity: AtomicU64::new(NO_REQUEST_YET),
            proven: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            task: AtomicWaker::new(),
        });
        state.last_id += 1;
        state.unproven += 1;
        let id = state.last_id;
        state.open.insert(id, connection.clone());
        state.peers.entry(peer).or_default().open += 1;
        Some(ConnectionGuard {
            connections: self.clone(),
            id,
            connection,
        })
    }

    /// Closes each connection that has sent no complete request head for this time after its last response.
    pub fn close_idle(&self, limit: Duration) {
        let now = self.0.milliseconds();
        for connection in self.0.state.lock().open.values() {
            let since = connection.activity.load(Ordering::Relaxed);
            let is_idle = !matches!(since, NO_REQUEST_YET | REQUEST_IN_FLIGHT);
            if is_idle && u128::from(now.saturating_sub(since)) >= limit.as_millis() {
                connection.stop();
            }
        }
    }

    /// Closes each connection after its request in flight, and waits until all have ended.
    pub async fn stop(&self) {
        for connection in self.0.state.lock().open.values() {
            connection.stop();
        }
        loop {
            let changed = self.0.changed.notified();
            if self.0.state.lock().open.is_empty() {
                return;
            }
            changed.await;
        }
    }
}

impl Inner {
    /// The time since the listener started.
    fn milliseconds(&self) -> u64 {
        let elapsed = u64::try_from(self.started.elapsed().as_millis());
        elapsed.map_or(REQUEST_IN_FLIGHT - 1, |time| time.min(REQUEST_IN_FLIGHT - 1))
    }
}

#[derive(Default)]
struct State {
    last_id: u64,
    unproven: usize,
    open: HashMap<u64, Arc<Connection>>,
    peers: HashMap<IpAddr, Peer>,
}

impl State {
    fn candidates(&self, now: Instant) -> impl Iterator<Item = Candidate> {
        self.open.iter().map(move |(id, connection)| Candidate {
            id: *id,
            peer: connection.peer,
            opened: connection.opened,
            activity: match connection.activity.load(Ordering::Relaxed) {
                NO_REQUEST_YET => Activity::Unproven {
                    peer_is_proven: self
                        .peers
                        .get(&connection.peer)
                        .is_some_and(|peer| peer.is_proven(now)),
                },
                REQUEST_IN_FLIGHT => Activity::Busy,
                since => Activity::Idle(since),
            },
        })
    }

    fn remove(&mut self, id: u64, now: Instant) -> Option<Arc<Connection>> {
        let connection = self.open.remove(&id)?;
        if !connection.proven.load(Ordering::Relaxed) {
            self.unproven -= 1;
        }
        if let Some(peer) = self.peers.get_mut(&connection.peer) {
            peer.open -= 1;
            if connection.proven.load(Ordering::Relaxed) {
                peer.proven -= 1;
                peer.last_proven = Some(now);
            }
            if peer.open == 0 && !peer.is_proven(now) {
                self.peers.remove(&connection.peer);
            }
        }
        Some(connection)
    }
}

/// The connections of one address.
#[derive(Default)]
struct Peer {
    open: usize,
    /// The number of open connections that are proven.
    proven: usize,
    /// When the last proven connection ended.
    last_proven: Option<Instant>,
    /// Limits concurrent handshakes. Closed when the address is proven: one address may stand for many API servers
    /// (konnectivity), which open hundreds of connections at the same time. A stranger with the address of an API
    /// server gains little: its connections are closed after some seconds, and before those of API servers.
    handshakes: Option<Arc<Semaphore>>,
}

impl Peer {
    fn is_proven(&self, now: Instant) -> bool {
        self.proven > 0 || self.last_proven.is_some_and(|then| now - then < PROVEN_PEER_TTL)
    }
}

/// A connection, shared by its task and [`State`].
struct Connection {
    peer: IpAddr,
    opened: Instant,
    /// [`NO_REQUEST_YET`], [`REQUEST_IN_FLIGHT`], or since when the connection is idle, in milliseconds since the
    /// listener started.
    activity: AtomicU64,
    /// Whether its address counts it as proven.
    proven: AtomicBool,
    evicted: AtomicBool,
    stopped: AtomicBool,
    /// Woken when the connection is evicted or stopped.
    task: AtomicWaker,
}

impl Connection {
    /// Closes the connection after its request in flight.
    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.task.wake();
    }

    /// Waits for a state that this connection enters before its task is woken.
    async fn until(&self, is_reached: impl Fn(&Self) -> bool) {
        poll_fn(|context| {
            self.task.register(context.waker());
            if is_reached(self) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    fn is_evicted(&self) -> bool {
        self.evicted.load(Ordering::Relaxed)
    }
}

/// An admitted connection. Dropping the guard releases it.
pub struct ConnectionGuard {
    connections: Connections,
    id: u64,
    connection: Arc<Connection>,
}

impl ConnectionGuard {
    /// Waits until the handshake may start. Dropping the permit lets the next connection of the address start. None if
    /// the address needs no permit, because it is proven.
    pub async fn handshake_permit(&self) -> Option<OwnedSemaphorePermit> {
        let now = Instant::now();
        let handshakes = {
            let mut state = self.connections.0.state.lock();
            let peer = state.peers.entry(self.connection.peer).or_default();
            if peer.is_proven(now) {
                return None;
            }
            // A closed semaphore belongs to an address whose proof has expired.
            if peer
                .handshakes
                .as_ref()
                .is_none_or(|handshakes| handshakes.is_closed())
            {
                peer.handshakes = Some(Arc::new(Semaphore::new(MAX_HANDSHAKES_PER_PEER)));
            }
            peer.handshakes.clone()?
        };
        handshakes.acquire_owned().await.ok()
    }

    /// Records a request for a secret path. The first one proves the connection.
    pub fn start_request(&self) {
        if self
            .connection
            .activity
            .swap(REQUEST_IN_FLIGHT, Ordering::Relaxed)
            == NO_REQUEST_YET
        {
            self.prove();
        }
    }

    fn prove(&self) {
        let mut state = self.connections.0.state.lock();
        // The connection may just have been evicted.
        if state.open.contains_key(&self.id) {
            self.connection.proven.store(true, Ordering::Relaxed);
            state.unproven -= 1;
            let peer = state.peers.entry(self.connection.peer).or_default();
            peer.proven += 1;
            if let Some(handshakes) = &peer.handshakes {
                handshakes.close();
            }
        }
        drop(state);
        self.connections.0.changed.notify_waiters();
    }

    /// Records the response to that request.
    pub fn finish_request(&self) {
        let all = &self.connections.0;
        self.connection
            .activity
            .store(all.milliseconds(), Ordering::Relaxed);
        if all.is_full.load(Ordering::Relaxed) {
            all.changed.notify_waiters();
        }
    }

    /// Whether a request for a secret path has arrived.
    pub fn is_proven(&self) -> bool {
        self.connection.activity.load(Ordering::Relaxed) != NO_REQUEST_YET
    }

    /// When the connection was admitted.
    pub fn opened(&self) -> Instant {
        self.connection.opened
    }

    /// Waits until the connection must be closed to admit another one.
    pub async fn evicted(&self) {
        self.connection.until(Connection::is_evicted).await;
    }

    /// Waits until the connection must be closed: to admit another one, after idle time, or because the listener stops.
    pub async fn must_close(&self) {
        self.connection
            .until(|connection| connection.is_evicted() || connection.stopped.load(Ordering::Relaxed))
            .await;
    }

    /// Whether the connection must be closed to admit another one.
    pub fn is_evicted(&self) -> bool {
        self.connection.is_evicted()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.connections.0.state.lock().remove(self.id, Instant::now());
        self.connections.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
