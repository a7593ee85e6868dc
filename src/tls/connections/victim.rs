//! The choice of the connection that is closed to admit a new one.

use super::UNPROVEN_GRACE;
use std::{collections::HashMap, net::IpAddr};
use tokio::time::Instant;

/// The limit that a new connection would exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReachedLimit {
    All,
    Unproven,
}

/// A connection that may be closed to admit another one.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub id: u64,
    pub peer: IpAddr,
    pub opened: Instant,
    pub activity: Activity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// No request for a secret path has arrived.
    Unproven { peer_is_proven: bool },
    /// A request is in flight.
    Busy,
    /// Idle since this time, in milliseconds since the listener started.
    Idle(u64),
}

/// Chooses the connection that is closed to admit a new one:
///
/// 1. The oldest connection of the unproven address with the most, so that a stranger with many loses its own.
/// 2. The same among unproven connections of proven addresses, after [`UNPROVEN_GRACE`].
/// 3. The longest idle connection. It comes late because its API server may be about to use it.
/// 4. The same as 2, without the grace.
///
/// A connection with a request in flight is never chosen.
///
/// If only the limit of unproven connections is reached, the new connection waits rather than 3 or 4.
pub fn choose_victim(reached: ReachedLimit, all: &[Candidate], now: Instant) -> Option<u64> {
    let oldest_of_largest_peer = |is_included: &dyn Fn(&Candidate) -> bool| {
        let mut per_peer = HashMap::<IpAddr, usize>::new();
        for candidate in all.iter().filter(|candidate| is_included(candidate)) {
            *per_peer.entry(candidate.peer).or_default() += 1;
        }
        let largest = per_peer.values().copied().max()?;
        all.iter()
            .filter(|candidate| is_included(candidate) && per_peer[&candidate.peer] == largest)
            .min_by_key(|candidate| (candidate.opened, candidate.id))
    };
    let is_unproven = |candidate: &Candidate| matches!(candidate.activity, Activity::Unproven { .. });
    let is_strangers = |candidate: &Candidate| {
        candidate.activity
            == Activity::Unproven {
                peer_is_proven: false,
            }
    };
    let is_overdue =
        |candidate: &Candidate| is_unproven(candidate) && now - candidate.opened >= UNPROVEN_GRACE;
    let longest_idle = || {
        let idle = all.iter().filter_map(|candidate| match candidate.activity {
            Activity::Idle(since) => Some((since, candidate)),
            _ => None,
        });
        idle.min_by_key(|(since, candidate)| (*since, candidate.id))
            .map(|(_, candidate)| candidate)
    };
    let victim = oldest_of_largest_peer(&is_strangers).or_else(|| oldest_of_largest_peer(&is_overdue));
    let victim = match reached {
        ReachedLimit::Unproven => victim,
        ReachedLimit::All => victim
            .or_else(longest_idle)
            .or_else(|| oldest_of_largest_peer(&is_unproven)),
    };
    victim.map(|candidate| candidate.id)
}
