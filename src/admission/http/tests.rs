use super::*;
use futures::{FutureExt, future::join_all, stream};
use std::convert::Infallible;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A body whose chunks come when the test sends them.
fn body() -> (UnboundedSender<Bytes>, Body) {
    let (sender, receiver) = unbounded_channel::<Bytes>();
    let chunks = stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, Infallible>(chunk), receiver))
    });
    (sender, Body::from_stream(chunks))
}

fn bytes(length: usize) -> Bytes {
    vec![b'x'; length].into()
}

async fn length(read: Result<Whole, Response>) -> Result<usize, StatusCode> {
    read.map(|whole| whole.bytes.len())
        .map_err(|response| response.status())
}

#[tokio::test]
async fn what_is_only_declared_takes_no_room() {
    let rooms = Rooms::new();
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let (sender, body) = body();
        sender.send(bytes(1)).unwrap();
        let mut read = Box::pin(rooms.read(Some(MAX_BODY), body));
        assert!(read.as_mut().now_or_never().is_none());
        waiting.push((sender, read));
    }
    // Each poll takes from what a task may do before it yields.
    tokio::task::yield_now().await;
    for size in [SMALL, SMALL + 1, MEDIUM, MEDIUM + 1, MAX_BODY] {
        let read = rooms.read(Some(size), Body::from(bytes(size)));
        assert_eq!(length(read.now_or_never().unwrap()).await, Ok(size));
    }
}

#[tokio::test]
async fn a_large_body_waits_for_another_and_nobody_else_does() {
    let rooms = Rooms::new();
    let mut large: Vec<_> = (0..LARGE_ROOMS + 1)
        .map(|_| {
            let (sender, body) = body();
            sender.send(bytes(MEDIUM + 1)).unwrap();
            (Some(sender), Box::pin(rooms.read(Some(MAX_BODY), body)))
        })
        .collect();
    for (_, read) in &mut large {
        assert!(read.as_mut().now_or_never().is_none());
    }
    // The last has not even begun, and holds no medium room either.
    assert_eq!(rooms.large.available_permits(), 0);
    assert_eq!(rooms.medium.available_permits(), MEDIUM_ROOMS);
    let medium = rooms.read(Some(MEDIUM), Body::from(bytes(MEDIUM)));
    assert!(medium.now_or_never().unwrap().is_ok());
    let small = rooms.read(None, Body::from(bytes(SMALL)));
    let small = small.now_or_never().unwrap().ok().unwrap();
    assert!(small.room.is_none());

    large[0].0 = None;
    let first = large[0].1.as_mut().now_or_never().unwrap().ok().unwrap();
    large[LARGE_ROOMS].0 = None;
    assert!(
        large[LARGE_ROOMS].1.as_mut().now_or_never().is_none(),
        "whoever is read still has the room"
    );
    drop(first);
    assert!(large[LARGE_ROOMS].1.as_mut().now_or_never().unwrap().is_ok());
}

#[tokio::test]
async fn bodies_of_unknown_length_that_are_read_in_turns_do_not_wait_for_each_other_for_ever() {
    let rooms = Rooms::new();
    let reads: Vec<_> = (0..3 * MEDIUM_ROOMS)
        .map(|_| {
            let chunks = (0..40).map(|_| Ok::<_, Infallible>(bytes(SMALL)));
            let slow = stream::iter(chunks).then(async |chunk| {
                tokio::task::yield_now().await;
                chunk
            });
            rooms.read(None, Body::from_stream(slow))
        })
        .collect();
    let all = join_all(reads.into_iter().map(async |read| length(read.await).await));
    let all = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    assert!(all.iter().all(|length| *length == Ok(40 * SMALL)));
    assert_eq!(rooms.large.available_permits(), LARGE_ROOMS);
    assert_eq!(rooms.medium.available_permits(), MEDIUM_ROOMS);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_whether_it_says_so_or_not() {
    let rooms = Rooms::new();
    for declared in [Some(MAX_BODY + 1), None] {
        let chunks = (0..400).map(|_| Ok::<_, Infallible>(bytes(SMALL)));
        let read = rooms
            .read(declared, Body::from_stream(stream::iter(chunks)))
            .await;
        assert_eq!(length(read).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
