//! The connections of one listener, and which of them is closed to make room for a new one.
//!
//! A connection is *proven* once it has carried a request for a secret path, which only API servers know. Other clients never
//! prove a connection, so they can only displace unproven connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// Maximum number of unproven connections of all addresses. One may take some 120 KiB, mostly for a message of an unfinished
/// handshake. An API server's connection is unproven for some milliseconds.
pub const MAX_UNPROVEN: usize = 128;
/// Maximum number of unproven connections per address in a TLS handshake or first request. Further ones wait and have no TLS
/// state yet.
const MAX_UNPROVEN_PER_PEER: usize = 64;
/// How long an address of an API server is remembered after its last proven connection: longer than a restart takes.
const PROVEN_PEER_TTL: Duration = Duration::from_secs(600);
/// An API server proves its connection within this time, unless the machine is very busy.
const HANDSHAKE_GRACE: Duration = Duration::from_secs(1);
/// How often a waiting connection checks whether an unproven connection has exceeded its grace.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// All connections of a listener. Clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    max: usize,
    began: Instant,
    state: Mutex<State>,
    /// Notified when a connection ends, is proven, or becomes idle.
    capacity_freed: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    unproven: usize,
    open: HashMap<u64, Arc<ConnectionState>>,
    peers: HashMap<IpAddr, Peer>,
}

/// A client address with its connections.
#[derive(Default)]
struct Peer {
    open: usize,
    /// The number of proven connections.
    proven: usize,
    /// When the last proven connection ended.
    last_proven: Option<Instant>,
    /// Handshake permits. Closed once the address is proven: many API servers may share one address (konnectivity) and open
    /// hundreds of connections at the same time. Another client with that address gains only unproven connections, which end
    /// after some seconds and are closed before those of an API server.
    slots: Option<Arc<Semaphore>>,
}

/// The state of a connection, shared by its task and the listener.
struct ConnectionState {
    peer: IpAddr,
    opened: Instant,
    /// One of the constants below, or since when the connection is idle, in milliseconds since the listener started.
    activity: AtomicU64,
    /// Whether the connection is counted as proven for its address.
    proven: AtomicBool,
    evicted: AtomicBool,
    evict: Notify,
}

const NO_REQUEST_YET: u64 = u64::MAX;
const REQUEST_IN_FLIGHT: u64 = u64::MAX - 1;

/// A slot for one connection, freed when dropped.
pub struct ConnectionSlot {
    all: Connections,
    id: u64,
    shared: Arc<ConnectionState>,
}

/// A connection that may be closed to make room.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u64,
    peer: IpAddr,
    opened: Instant,
    activity: Activity,
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReachedLimit {
    Total,
    Unproven,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Activity {
    /// No request for a secret path yet.
    Unproven { peer_is_proven: bool },
    /// A request is in progress.
    Busy,
    /// No request since this time.
    Idle(u64),
}

impl Connections {
    /// Allows `max` concurrent connections.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Inner {
            max,
            began: Instant::now(),
            state: Mutex::default(),
            capacity_freed: Notify::new(),
        }))
    }

    /// Returns a slot for a new connection, after closing another connection if a limit is reached. Waits while no connection may
    /// be closed.
    pub async fn admit(&self, peer: IpAddr) -> ConnectionSlot {
        // A listener on IPv6 reports IPv4 addresses in mapped form.
        let peer = peer.to_canonical();
        loop {
            let capacity_freed = self.0.capacity_freed.notified();
            if let Some(slot) = self.try_admit(peer) {
                return slot;
            }
            let _ = timeout(RECHECK_INTERVAL, capacity_freed).await;
        }
    }

    fn try_admit(&self, peer: IpAddr) -> Option<ConnectionSlot> {
        let now = Instant::now();
        let mut state = self.lock();
        let full = match () {
            () if state.open.len() >= self.0.max => Some(ReachedLimit::Total),
            () if state.unproven >= MAX_UNPROVEN => Some(ReachedLimit::Unproven),
            () => None,
        };
        if let Some(full) = full {
            let candidates: Vec<_> = state.candidates(now).collect();
            let victim = choose_eviction(full, &candidates, now)?;
            if let Some(shared) = state.remove(victim, now) {
                shared.evicted.store(true, Ordering::Relaxed);
                shared.evict.notify_one();
            }
        }
        let shared = Arc::new(ConnectionState {
            peer,
            opened: now,
            activity: AtomicU64::new(NO_REQUEST_YET),
            proven: AtomicBool::new(false),
            evicted: AtomicBool::new(false),
            evict: Notify::new(),
        });
        state.next += 1;
        state.unproven += 1;
        let id = state.next;
        state.open.insert(id, shared.clone());
        let known = state.peers.entry(peer).or_default();
        known.open += 1;
        Some(ConnectionSlot {
            all: self.clone(),
            id,
            shared,
        })
    }

    /// Waits until all connections have ended.
    pub async fn all_ended(&self) {
        loop {
            let capacity_freed = self.0.capacity_freed.notified();
            if self.lock().open.is_empty() {
                return;
            }
            capacity_freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn candidates(&self, now: Instant) -> impl Iterator<Item = Candidate> {
        self.open.iter().map(move |(id, shared)| Candidate {
            id: *id,
            peer: shared.peer,
            opened: shared.opened,
            activity: match shared.activity.load(Ordering::Relaxed) {
                NO_REQUEST_YET => Activity::Unproven {
                    peer_is_proven: self
                        .peers
                        .get(&shared.peer)
                        .is_some_and(|peer| peer.is_proven(now)),
                },
                REQUEST_IN_FLIGHT => Activity::Busy,
                since => Activity::Idle(since),
            },
        })
    }

    fn remove(&mut self, id: u64, now: Instant) -> Option<Arc<ConnectionState>> {
        let shared = self.open.remove(&id)?;
        if !shared.proven.load(Ordering::Relaxed) {
            self.unproven -= 1;
        }
        if let Some(peer) = self.peers.get_mut(&shared.peer) {
            peer.open -= 1;
            if shared.proven.load(Ordering::Relaxed) {
                peer.proven -= 1;
                peer.last_proven = Some(now);
            }
            if peer.open == 0 && !peer.is_proven(now) {
                self.peers.remove(&shared.peer);
            }
        }
        Some(shared)
    }
}

impl Peer {
    fn is_proven(&self, now: Instant) -> bool {
        self.proven > 0 || self.last_proven.is_some_and(|then| now - then < PROVEN_PEER_TTL)
    }
}

/// Chooses the connection that is closed to make room for a new one.
///
/// First the oldest unproven connection of the unknown address with the most connections, so that a client that opens many
/// loses its own. Then unproven connections of an API server's address that have exceeded their grace. Then the connection
/// that has been idle longest, whose API server is least likely to use it soon. Never one with a request in progress.
///
/// If only the limit of unproven connections is reached, connections of an API server's address are not closed during their
/// grace, and the new connection waits.
fn choose_eviction(full: ReachedLimit, all: &[Candidate], now: Instant) -> Option<u64> {
    let oldest_of_largest_peer = |counts: &dyn Fn(&Candidate) -> bool| {
        let mut of_peer = HashMap::<IpAddr, usize>::new();
        for candidate in all.iter().filter(|candidate| counts(candidate)) {
            *of_peer.entry(candidate.peer).or_default() += 1;
        }
        let most = of_peer.values().copied().max()?;
        all.iter()
            .filter(|candidate| counts(candidate) && of_peer[&candidate.peer] == most)
            .min_by_key(|candidate| (candidate.opened, candidate.id))
    };
    let unproven = |candidate: &Candidate| matches!(candidate.activity, Activity::Unproven { .. });
    let of_unknown_peer = |candidate: &Candidate| {
        candidate.activity
            == Activity::Unproven {
                peer_is_proven: false,
            }
    };
    let stale = |candidate: &Candidate| unproven(candidate) && now - candidate.opened >= HANDSHAKE_GRACE;
    let idle = || {
        let idle = all.iter().filter_map(|candidate| match candidate.activity {
            Activity::Idle(since) => Some((since, candidate)),
            _ => None,
        });
        idle.min_by_key(|(since, candidate)| (*since, candidate.id))
            .map(|(_, candidate)| candidate)
    };
    let victim = oldest_of_largest_peer(&of_unknown_peer).or_else(|| oldest_of_largest_peer(&stale));
    let victim = match full {
        ReachedLimit::Unproven => victim,
        ReachedLimit::Total => victim.or_else(idle).or_else(|| oldest_of_largest_peer(&unproven)),
    };
    victim.map(|candidate| candidate.id)
}

impl ConnectionSlot {
    /// Waits for a handshake permit of its address. Dropping the permit passes it to the next connection.
    pub async fn handshake_permit(&self) -> Option<OwnedSemaphorePermit> {
        let now = Instant::now();
        let slots = {
            let mut state = self.all.lock();
            let peer = state.peers.entry(self.shared.peer).or_default();
            if peer.is_proven(now) {
                return None;
            }
            // A closed semaphore is left from an address that was proven earlier.
            if peer.slots.as_ref().is_none_or(|slots| slots.is_closed()) {
                peer.slots = Some(Arc::new(Semaphore::new(MAX_UNPROVEN_PER_PEER)));
            }
            peer.slots.clone()?
        };
        slots.acquire_owned().await.ok()
    }

    /// Records that a request for a secret path has arrived.
    pub fn begin_request(&self) {
        if self.shared.activity.swap(REQUEST_IN_FLIGHT, Ordering::Relaxed) == NO_REQUEST_YET {
            self.prove();
        }
    }

    fn prove(&self) {
        let mut state = self.all.lock();
        // The connection may have been evicted meanwhile.
        if state.open.contains_key(&self.id) {
            self.shared.proven.store(true, Ordering::Relaxed);
            state.unproven -= 1;
            let peer = state.peers.entry(self.shared.peer).or_default();
            peer.proven += 1;
            if let Some(slots) = &peer.slots {
                slots.close();
            }
        }
        drop(state);
        self.all.0.capacity_freed.notify_waiters();
    }

    /// Records that the request was answered.
    pub fn end_request(&self) {
        let since = self.all.0.began.elapsed().as_millis();
        let since = u64::try_from(since)
            .unwrap_or(REQUEST_IN_FLIGHT - 1)
            .min(REQUEST_IN_FLIGHT - 1);
        self.shared.activity.store(since, Ordering::Relaxed);
        self.all.0.capacity_freed.notify_waiters();
    }

    /// Whether the connection ever carried a request for a secret path.
    pub fn is_proven(&self) -> bool {
        self.shared.activity.load(Ordering::Relaxed) != NO_REQUEST_YET
    }

    /// When the connection was opened.
    pub fn opened(&self) -> Instant {
        self.shared.opened
    }

    /// Waits until this connection must make room.
    pub async fn evicted(&self) {
        while !self.shared.evicted.load(Ordering::Relaxed) {
            self.shared.evict.notified().await;
        }
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.all.lock().remove(self.id, Instant::now());
        self.all.0.capacity_freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
