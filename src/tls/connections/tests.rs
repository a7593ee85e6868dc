use super::*;
use std::{net::Ipv4Addr, pin::pin};

const STRANGER: u8 = 1;
const API_SERVER: u8 = 200;

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

/// Connections of these addresses, named by their slot in the list, `age` milliseconds old.
fn room(full: ReachedLimit, now: Instant, all: &[(u8, u64, Activity)]) -> Option<usize> {
    let candidates: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(n, (peer, age, activity))| Candidate {
            id: n as u64,
            peer: address(*peer),
            opened: now - Duration::from_millis(*age),
            activity: *activity,
        })
        .collect();
    choose_eviction(full, &candidates, now).map(|id| id as usize)
}

#[test]
fn unproven_connections_are_evicted_first_then_the_longest_idle() {
    let now = Instant::now() + Duration::from_secs(3600);
    let strange = Activity::Unproven {
        peer_is_proven: false,
    };
    let near = Activity::Unproven { peer_is_proven: true };
    let server = API_SERVER;
    for (why, all, expected) in [
        (
            "the oldest of the stranger that has the most",
            vec![
                (2, 4000, strange),
                (STRANGER, 10, strange),
                (STRANGER, 20, strange),
                (server, 9000, Activity::Idle(1)),
            ],
            Some(2),
        ),
        (
            "the oldest, where each stranger has one",
            vec![(1, 10, strange), (2, 30, strange), (3, 20, strange)],
            Some(1),
        ),
        (
            "a stranger's before one of an API server's address, however many those are",
            vec![(server, 4000, near), (server, 3000, near), (STRANGER, 1, strange)],
            Some(2),
        ),
        (
            "a silent one of an API server's address before an idle one",
            vec![
                (server, 4000, near),
                (server, 10, near),
                (server, 9000, Activity::Idle(1)),
            ],
            Some(0),
        ),
        (
            "the longest idle one before handshakes of an API server",
            vec![
                (server, 10, near),
                (server, 9000, Activity::Idle(7)),
                (server, 8000, Activity::Idle(3)),
                (server, 9500, Activity::Busy),
            ],
            Some(2),
        ),
        (
            "a handshake before a request in flight",
            vec![(server, 9000, Activity::Busy), (server, 1, near)],
            Some(1),
        ),
        ("nobody", vec![(server, 9000, Activity::Busy)], None),
    ] {
        assert_eq!(room(ReachedLimit::Total, now, &all), expected, "{why}");
    }
    let handshakes = [
        (server, 999, near),
        (server, 1, near),
        (server, 9000, Activity::Idle(1)),
    ];
    assert_eq!(
        room(ReachedLimit::Unproven, now, &handshakes),
        None,
        "API servers' handshakes are waited for, and idle ones no help"
    );
    let silent = [(server, 2000, near), (STRANGER, 1, strange)];
    assert_eq!(room(ReachedLimit::Unproven, now, &silent), Some(1));
    assert_eq!(room(ReachedLimit::Unproven, now, &silent[..1]), Some(0));
}

#[tokio::test]
async fn idle_unproven_connections_make_room_for_a_new_one() {
    let all = Connections::new(3);
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(all.admit(address(STRANGER)).await);
    }
    let server = all.admit(address(API_SERVER)).await;
    strangers[0].evicted().await;
    assert_eq!(all.lock().open.len(), 3);
    server.begin_request();
    // However many come now, the API server's stays.
    for _ in 0..10 {
        strangers.push(all.admit(address(STRANGER)).await);
    }
    server.end_request();
    strangers.push(all.admit(address(STRANGER)).await);
    assert!(!server.shared.evicted.load(Ordering::Relaxed));
    assert_eq!(all.lock().open.len(), 3);
    drop(strangers);
    drop(server);
    all.all_ended().await;
    assert_eq!(
        all.lock().peers.len(),
        1,
        "the API server's address is remembered"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_waits_while_all_others_have_requests_in_flight() {
    let all = Connections::new(2);
    let (one, other) = (
        all.admit(address(API_SERVER)).await,
        all.admit(address(API_SERVER)).await,
    );
    one.begin_request();
    other.begin_request();
    let mut waiting = tokio::spawn({
        let all = all.clone();
        async move { all.admit(address(API_SERVER)).await }
    });
    let early = tokio::time::timeout(Duration::from_secs(60), &mut waiting).await;
    assert!(early.is_err(), "nobody is cut off");
    one.end_request();
    let _third = waiting.await.unwrap();
    one.evicted().await;
    assert!(!other.shared.evicted.load(Ordering::Relaxed));
}

/// Connections from an address of API servers are admitted as fast as they finish their handshakes. Other unproven
/// connections are closed immediately.
#[tokio::test(start_paused = true)]
async fn unproven_connections_have_a_bound_of_their_own() {
    let all = Connections::new(10 * MAX_UNPROVEN);
    let first = all.admit(address(API_SERVER)).await;
    first.begin_request();
    let mut burst = Vec::new();
    for _ in 0..MAX_UNPROVEN {
        burst.push(all.admit(address(API_SERVER)).await);
    }
    let mut next = pin!(all.admit(address(API_SERVER)));
    assert!(
        timeout(HANDSHAKE_GRACE / 2, &mut next).await.is_err(),
        "all are fresh"
    );
    burst[7].begin_request();
    let next = next.await;
    assert!(
        burst
            .iter()
            .all(|slot| !slot.shared.evicted.load(Ordering::Relaxed))
    );
    assert_eq!(all.lock().unproven, MAX_UNPROVEN);
    // What is silent for longer is no API server.
    drop(
        timeout(2 * HANDSHAKE_GRACE, all.admit(address(STRANGER)))
            .await
            .unwrap(),
    );
    burst[0].evicted().await;
    for slot in &burst[8..] {
        slot.begin_request();
    }
    for _ in 0..2 * MAX_UNPROVEN {
        burst.push(all.admit(address(STRANGER)).await);
    }
    assert_eq!(all.lock().unproven, MAX_UNPROVEN);
    drop((first, burst, next));
    assert_eq!(all.lock().unproven, 0);
}

#[tokio::test(start_paused = true)]
async fn only_unproven_addresses_are_limited_in_concurrent_handshakes() {
    let all = Connections::new(1000);
    let in_turn = async |slot: &ConnectionSlot| {
        tokio::time::timeout(Duration::from_secs(60), slot.handshake_permit()).await
    };
    let mut turns = Vec::new();
    for _ in 0..MAX_UNPROVEN_PER_PEER {
        let slot = all.admit(address(STRANGER)).await;
        turns.push((in_turn(&slot).await.expect("a slot is free"), slot));
    }
    let more = all.admit(address(STRANGER)).await;
    assert!(in_turn(&more).await.is_err());
    let elsewhere = all.admit(address(API_SERVER)).await;
    assert!(in_turn(&elsewhere).await.is_ok(), "others do not wait");
    turns.pop();
    assert!(in_turn(&more).await.is_ok());

    // Those that wait go on as soon as the address is known to be an API server's.
    let waiting = all.admit(address(STRANGER)).await;
    let more = (in_turn(&more).await, more);
    let (turn, ()) = tokio::join!(in_turn(&waiting), async { turns[0].1.begin_request() });
    assert!(turn.is_ok());
    for _ in 0..3 * MAX_UNPROVEN_PER_PEER {
        let slot = all.admit(address(STRANGER)).await;
        assert!(in_turn(&slot).await.is_ok());
        turns.push((None, slot));
    }
    drop((turns, waiting, more));

    // After a while without it, the address may be anybody's.
    tokio::time::advance(PROVEN_PEER_TTL).await;
    let mut turns = Vec::new();
    for _ in 0..MAX_UNPROVEN_PER_PEER {
        let slot = all.admit(address(STRANGER)).await;
        turns.push((in_turn(&slot).await.unwrap(), slot));
    }
    let more = all.admit(address(STRANGER)).await;
    assert!(in_turn(&more).await.is_err());
}
