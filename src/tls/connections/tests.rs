use super::*;
use futures::FutureExt;
use std::{net::Ipv4Addr, pin::pin};

const STRANGER: u8 = 1;
const API_SERVER: u8 = 200;

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

/// The index of the victim among connections of these addresses, each `age` milliseconds old.
fn victim_of(reached: ReachedLimit, now: Instant, all: &[(u8, u64, Activity)]) -> Option<usize> {
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
    choose_victim(reached, &candidates, now).map(|id| id as usize)
}

const OF_A_STRANGER: Activity = Activity::Unproven {
    peer_is_proven: false,
};
const UNPROVEN: Activity = Activity::Unproven { peer_is_proven: true };

/// A moment at which connections can be old.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[test]
fn strangers_are_evicted_first_then_overdue_then_idle_connections() {
    let (now, stranger, unproven, server) = (later(), OF_A_STRANGER, UNPROVEN, API_SERVER);
    for (why, all, expected) in [
        (
            "the oldest connection of the stranger with the most",
            vec![
                (2, 4000, stranger),
                (STRANGER, 10, stranger),
                (STRANGER, 20, stranger),
                (server, 9000, Activity::Idle(1)),
            ],
            Some(2),
        ),
        (
            "the oldest connection if each stranger has one",
            vec![(1, 10, stranger), (2, 30, stranger), (3, 20, stranger)],
            Some(1),
        ),
        (
            "a stranger's connection before any of a proven address",
            vec![
                (server, 4000, unproven),
                (server, 3000, unproven),
                (STRANGER, 1, stranger),
            ],
            Some(2),
        ),
        (
            "an overdue connection of a proven address before an idle one",
            vec![
                (server, 4000, unproven),
                (server, 10, unproven),
                (server, 9000, Activity::Idle(1)),
            ],
            Some(0),
        ),
        (
            "the longest idle connection before an API server's handshake",
            vec![
                (server, 10, unproven),
                (server, 9000, Activity::Idle(7)),
                (server, 8000, Activity::Idle(3)),
                (server, 9500, Activity::Busy),
            ],
            Some(2),
        ),
        (
            "a handshake before a request in flight",
            vec![(server, 9000, Activity::Busy), (server, 1, unproven)],
            Some(1),
        ),
        (
            "no connection with a request in flight",
            vec![(server, 9000, Activity::Busy)],
            None,
        ),
    ] {
        assert_eq!(victim_of(ReachedLimit::All, now, &all), expected, "{why}");
    }
}

#[test]
fn a_handshake_of_an_api_server_is_evicted_only_if_it_is_overdue() {
    let (now, stranger, unproven, server) = (later(), OF_A_STRANGER, UNPROVEN, API_SERVER);
    let handshakes = [
        (server, 999, unproven),
        (server, 1, unproven),
        (server, 9000, Activity::Idle(1)),
    ];
    assert_eq!(
        victim_of(ReachedLimit::Unproven, now, &handshakes),
        None,
        "the new connection waits for the API server's handshakes"
    );
    let overdue = [(server, 2000, unproven), (STRANGER, 1, stranger)];
    assert_eq!(victim_of(ReachedLimit::Unproven, now, &overdue), Some(1));
    assert_eq!(victim_of(ReachedLimit::Unproven, now, &overdue[..1]), Some(0));
}

#[tokio::test]
async fn idle_strangers_do_not_keep_out_a_new_connection() {
    let all = Connections::new(3);
    let mut strangers = Vec::new();
    for _ in 0..3 {
        strangers.push(all.admit(address(STRANGER)).await);
    }
    let server = all.admit(address(API_SERVER)).await;
    strangers[0].evicted().await;
    assert_eq!(all.0.state.lock().open.len(), 3);
    server.start_request();
    // Any number of new connections leaves the API server's open.
    for _ in 0..10 {
        strangers.push(all.admit(address(STRANGER)).await);
    }
    server.finish_request();
    strangers.push(all.admit(address(STRANGER)).await);
    assert!(!server.is_evicted());
    assert_eq!(all.0.state.lock().open.len(), 3);
    drop(strangers);
    drop(server);
    all.stop().await;
    assert_eq!(
        all.0.state.lock().peers.len(),
        1,
        "the API server's address stays proven"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_waits_if_all_have_a_request_in_flight() {
    let all = Connections::new(2);
    let (one, other) = (
        all.admit(address(API_SERVER)).await,
        all.admit(address(API_SERVER)).await,
    );
    one.start_request();
    other.start_request();
    let mut waiting = tokio::spawn({
        let all = all.clone();
        async move { all.admit(address(API_SERVER)).await }
    });
    let early = tokio::time::timeout(Duration::from_secs(60), &mut waiting).await;
    assert!(early.is_err(), "no connection is closed");
    one.finish_request();
    let _third = waiting.await.unwrap();
    one.evicted().await;
    assert!(!other.is_evicted());
}

/// A burst from a proven address is admitted as fast as its handshakes end. Strangers' connections are closed
/// immediately.
#[tokio::test(start_paused = true)]
async fn unproven_connections_have_their_own_limit() {
    let all = Connections::new(10 * MAX_UNPROVEN);
    let first = all.admit(address(API_SERVER)).await;
    first.start_request();
    let mut burst = Vec::new();
    for _ in 0..MAX_UNPROVEN {
        burst.push(all.admit(address(API_SERVER)).await);
    }
    let mut next = pin!(all.admit(address(API_SERVER)));
    assert!(
        timeout(UNPROVEN_GRACE / 2, &mut next).await.is_err(),
        "all are within the grace"
    );
    burst[7].start_request();
    let next = next.await;
    assert!(burst.iter().all(|connection| !connection.is_evicted()));
    assert_eq!(all.0.state.lock().unproven, MAX_UNPROVEN);
    // An unproven connection that is older is closed.
    drop(
        timeout(2 * UNPROVEN_GRACE, all.admit(address(STRANGER)))
            .await
            .unwrap(),
    );
    burst[0].evicted().await;
    for connection in &burst[8..] {
        connection.start_request();
    }
    for _ in 0..2 * MAX_UNPROVEN {
        burst.push(all.admit(address(STRANGER)).await);
    }
    assert_eq!(all.0.state.lock().unproven, MAX_UNPROVEN);
    drop((first, burst, next));
    assert_eq!(all.0.state.lock().unproven, 0);
}

#[tokio::test(start_paused = true)]
async fn concurrent_handshakes_are_only_limited_for_unproven_addresses() {
    let all = Connections::new(1000);
    let permit = async |connection: &ConnectionGuard| {
        tokio::time::timeout(Duration::from_secs(60), connection.handshake_permit()).await
    };
    let mut permits = Vec::new();
    for _ in 0..MAX_HANDSHAKES_PER_PEER {
        let connection = all.admit(address(STRANGER)).await;
        permits.push((permit(&connection).await.expect("a permit is free"), connection));
    }
    let more = all.admit(address(STRANGER)).await;
    assert!(permit(&more).await.is_err());
    let elsewhere = all.admit(address(API_SERVER)).await;
    assert!(permit(&elsewhere).await.is_ok(), "another address does not wait");
    permits.pop();
    assert!(permit(&more).await.is_ok());

    // Waiting handshakes start when the address is proven.
    let waiting = all.admit(address(STRANGER)).await;
    let more = (permit(&more).await, more);
    let (waited, ()) = tokio::join!(permit(&waiting), async { permits[0].1.start_request() });
    assert!(waited.is_ok());
    for _ in 0..3 * MAX_HANDSHAKES_PER_PEER {
        let connection = all.admit(address(STRANGER)).await;
        assert!(permit(&connection).await.is_ok());
        permits.push((None, connection));
    }
    drop((permits, waiting, more));

    // The proof expires.
    tokio::time::advance(PROVEN_PEER_TTL).await;
    let mut permits = Vec::new();
    for _ in 0..MAX_HANDSHAKES_PER_PEER {
        let connection = all.admit(address(STRANGER)).await;
        permits.push((permit(&connection).await.unwrap(), connection));
    }
    let more = all.admit(address(STRANGER)).await;
    assert!(permit(&more).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn only_connections_that_are_idle_for_the_whole_time_are_closed() {
    let limit = Duration::from_secs(120);
    let all = Connections::new(10);
    let [idle, busy, unproven] = [
        all.admit(address(API_SERVER)).await,
        all.admit(address(API_SERVER)).await,
        all.admit(address(STRANGER)).await,
    ];
    idle.start_request();
    tokio::time::advance(limit).await;
    idle.finish_request();
    busy.start_request();
    tokio::time::advance(limit - Duration::from_millis(1)).await;
    all.close_idle(limit);
    for open in [&idle, &busy, &unproven] {
        assert_eq!(open.must_close().now_or_never(), None);
    }
    tokio::time::advance(Duration::from_millis(1)).await;
    all.close_idle(limit);
    idle.must_close().await;
    assert!(!idle.is_evicted());
    for open in [&busy, &unproven] {
        assert_eq!(open.must_close().now_or_never(), None);
    }
}
