//! All connections of one listener, and which of them makes room for a new one.
//!
//! A connection is *proven* once a request for a secret path came on it: only API servers can do that. A stranger's
//! connection never is, so it costs a stranger's connection and nothing else.

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

/// Connections that are not proven, at the same time, whosever they are. One may take some 120 KiB, most of it for a message
/// of a handshake that does not end; an API server's is one of them for some milliseconds.
pub const UNPROVEN: usize = 128;
/// Connections of one address that may shake hands and send a head at the same time; further ones wait, and have no TLS
/// state yet.
const UNPROVEN_OF_A_PEER: usize = 64;
/// How long an address is remembered that API servers call from: longer than one takes to restart.
const PROVEN_FOR: Duration = Duration::from_secs(600);
/// An API server's connection is proven sooner than this, unless the machine is very busy.
const FRESH: Duration = Duration::from_secs(1);
/// How often a connection that found no place looks for one that is fresh no more.
const LOOK: Duration = Duration::from_millis(100);

/// Clones share them.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    most: usize,
    began: Instant,
    state: Mutex<State>,
    /// Rings when a connection has ended, is proven, or has nothing to do any more.
    eased: Notify,
}

#[derive(Default)]
struct State {
    next: u64,
    unproven: usize,
    open: HashMap<u64, Arc<Shared>>,
    peers: HashMap<IpAddr, Peer>,
}

/// An address, with all its connections.
#[derive(Default)]
struct Peer {
    open: usize,
    /// Those of them that are proven.
    proven: usize,
    /// When the last of these was.
    last_proven: Option<Instant>,
    /// Closed once it is proven: behind one address there may be many API servers (konnectivity), which open hundreds of
    /// connections at once. Who has the address of one and is none gains no more than its own connections: those are
    /// ended after some seconds, and make room before an API server's do.
    slots: Option<Arc<Semaphore>>,
}

/// What the connection's task and the others know of it.
struct Shared {
    peer: IpAddr,
    opened: Instant,
    /// One of the constants below, or since when there is no request, in milliseconds since the listener began.
    doing: AtomicU64,
    /// Whether it counts among its address' proven ones.
    proven: AtomicBool,
    evicted: AtomicBool,
    evict: Notify,
}

const NEVER_ASKED: u64 = u64::MAX;
const BUSY: u64 = u64::MAX - 1;

/// A connection's place; free again when this is dropped.
pub struct Place {
    all: Connections,
    id: u64,
    shared: Arc<Shared>,
}

/// A connection, as seen when one has to make room.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    id: u64,
    peer: IpAddr,
    opened: Instant,
    doing: Doing,
}

/// Which places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    All,
    Unproven,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    /// Nothing that shows an API server; whether its address is one's.
    Unproven { peer_is_proven: bool },
    /// A request is answered.
    Busy,
    /// Since then, nothing.
    Idle(u64),
}

// === impl Connections ===

impl Connections {
    /// None yet, and so many at the same time.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Inner {
            most,
            began: Instant::now(),
            state: Mutex::default(),
            eased: Notify::new(),
        }))
    }

    /// A place for a new connection, at once unless all others are API servers' and have something to do: another one makes
    /// room.
    pub async fn admit(&self, peer: IpAddr) -> Place {
        // IPv4 has two spellings where the listener is of IPv6.
        let peer = peer.to_canonical();
        loop {
            let eased = self.0.eased.notified();
            if let Some(place) = self.try_admit(peer) {
                return place;
            }
            let _ = timeout(LOOK, eased).await;
        }
    }

    fn try_admit(&self, peer: IpAddr) -> Option<Place> {
        let now = Instant::now();
        let mut state = self.lock();
        let full = match () {
            () if state.open.len() >= self.0.most => Some(Full::All),
            () if state.unproven >= UNPROVEN => Some(Full::Unproven),
            () => None,
        };
        if let Some(full) = full {
            let candidates: Vec<_> = state.candidates(now).collect();
            let victim = who_makes_room(full, &candidates, now)?;
            if let Some(shared) = state.remove(victim, now) {
                shared.evicted.store(true, Ordering::Relaxed);
                shared.evict.notify_one();
            }
        }
        let shared = Arc::new(Shared {
            peer,
            opened: now,
            doing: AtomicU64::new(NEVER_ASKED),
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
        Some(Place {
            all: self.clone(),
            id,
            shared,
        })
    }

    /// Returns when all are ended.
    pub async fn all_ended(&self) {
        loop {
            let eased = self.0.eased.notified();
            if self.lock().open.is_empty() {
                return;
            }
            eased.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    fn candidates(&self, now: Instant) -> impl Iterator<Item = Candidate> {
        self.open.iter().map(move |(id, shared)| Candidate {
            id: *id,
            peer: shared.peer,
            opened: shared.opened,
            doing: match shared.doing.load(Ordering::Relaxed) {
                NEVER_ASKED => Doing::Unproven {
                    peer_is_proven: self
                        .peers
                        .get(&shared.peer)
                        .is_some_and(|peer| peer.is_proven(now)),
                },
                BUSY => Doing::Busy,
                since => Doing::Idle(since),
            },
        })
    }

    fn remove(&mut self, id: u64, now: Instant) -> Option<Arc<Shared>> {
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

// === impl Peer ===

impl Peer {
    fn is_proven(&self, now: Instant) -> bool {
        self.proven > 0 || self.last_proven.is_some_and(|then| now - then < PROVEN_FOR)
    }
}

/// The connection that is given up for a new one.
///
/// Strangers' first: the oldest of the address that has the most, so that who opens many loses its own. Then those that
/// have an API server's address and do not behave like one. Then the longest idle one: its API server may be about to
/// use it. Never one whose request is in flight.
///
/// Where only the places of unproven ones are taken, none of an API server's address is given up while it is fresh: the new
/// one waits for it.
fn who_makes_room(full: Full, all: &[Candidate], now: Instant) -> Option<u64> {
    let oldest_of_the_most = |counts: &dyn Fn(&Candidate) -> bool| {
        let mut of_peer = HashMap::<IpAddr, usize>::new();
        for candidate in all.iter().filter(|candidate| counts(candidate)) {
            *of_peer.entry(candidate.peer).or_default() += 1;
        }
        let most = of_peer.values().copied().max()?;
        all.iter()
            .filter(|candidate| counts(candidate) && of_peer[&candidate.peer] == most)
            .min_by_key(|candidate| (candidate.opened, candidate.id))
    };
    let unproven = |candidate: &Candidate| matches!(candidate.doing, Doing::Unproven { .. });
    let strange = |candidate: &Candidate| {
        candidate.doing
            == Doing::Unproven {
                peer_is_proven: false,
            }
    };
    let stale = |candidate: &Candidate| unproven(candidate) && now - candidate.opened >= FRESH;
    let idle = || {
        let idle = all.iter().filter_map(|candidate| match candidate.doing {
            Doing::Idle(since) => Some((since, candidate)),
            _ => None,
        });
        idle.min_by_key(|(since, candidate)| (*since, candidate.id))
            .map(|(_, candidate)| candidate)
    };
    let victim = oldest_of_the_most(&strange).or_else(|| oldest_of_the_most(&stale));
    let victim = match full {
        Full::Unproven => victim,
        Full::All => victim.or_else(idle).or_else(|| oldest_of_the_most(&unproven)),
    };
    victim.map(|candidate| candidate.id)
}

// === impl Place ===

impl Place {
    /// Waits for its turn among those of its address; dropping the value gives the turn to the next.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        let now = Instant::now();
        let slots = {
            let mut state = self.all.lock();
            let peer = state.peers.entry(self.shared.peer).or_default();
            if peer.is_proven(now) {
                return None;
            }
            // Closed ones are of an address that was proven long ago.
            if peer.slots.as_ref().is_none_or(|slots| slots.is_closed()) {
                peer.slots = Some(Arc::new(Semaphore::new(UNPROVEN_OF_A_PEER)));
            }
            peer.slots.clone()?
        };
        slots.acquire_owned().await.ok()
    }

    /// A request for a secret path has come.
    pub fn begin(&self) {
        if self.shared.doing.swap(BUSY, Ordering::Relaxed) == NEVER_ASKED {
            self.prove();
        }
    }

    fn prove(&self) {
        let mut state = self.all.lock();
        // It may have had to make room this very moment.
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
        self.all.0.eased.notify_waiters();
    }

    /// That request is answered.
    pub fn end(&self) {
        let since = self.all.0.began.elapsed().as_millis();
        let since = u64::try_from(since).unwrap_or(BUSY - 1).min(BUSY - 1);
        self.shared.doing.store(since, Ordering::Relaxed);
        self.all.0.eased.notify_waiters();
    }

    /// Whether a request for a secret path ever came.
    pub fn is_proven(&self) -> bool {
        self.shared.doing.load(Ordering::Relaxed) != NEVER_ASKED
    }

    /// When it was opened.
    pub fn opened(&self) -> Instant {
        self.shared.opened
    }

    /// Returns when it has to make room.
    pub async fn evicted(&self) {
        while !self.shared.evicted.load(Ordering::Relaxed) {
            self.shared.evict.notified().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.lock().remove(self.id, Instant::now());
        self.all.0.eased.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
