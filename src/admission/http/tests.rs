use super::*;
use futures::{FutureExt, future::join_all, stream};
use std::convert::Infallible;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// A body whose chunks arrive when the test sends them.
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

async fn length(read: Result<CompleteBody, Response>) -> Result<usize, StatusCode> {
    read.map(|body| body.bytes.len())
        .map_err(|response| response.status())
}

#[tokio::test]
async fn a_content_length_alone_takes_no_permit() {
    let permits = BodyPermits::new();
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let (sender, body) = body();
        sender.send(bytes(1)).unwrap();
        let mut read = Box::pin(permits.read(Some(MAX_BODY_BYTES), body));
        assert!(read.as_mut().now_or_never().is_none());
        waiting.push((sender, read));
    }
    // Restores the task's cooperative budget, which each poll reduces.
    tokio::task::yield_now().await;
    for size in [
        SMALL_BODY_BYTES,
        SMALL_BODY_BYTES + 1,
        MEDIUM_BODY_BYTES,
        MEDIUM_BODY_BYTES + 1,
        MAX_BODY_BYTES,
    ] {
        let read = permits.read(Some(size), Body::from(bytes(size)));
        assert_eq!(length(read.now_or_never().unwrap()).await, Ok(size));
    }
}

#[tokio::test]
async fn only_large_bodies_wait_for_large_bodies() {
    let permits = BodyPermits::new();
    let mut large: Vec<_> = (0..LARGE_BODY_PERMITS + 1)
        .map(|_| {
            let (sender, body) = body();
            sender.send(bytes(MEDIUM_BODY_BYTES + 1)).unwrap();
            (Some(sender), Box::pin(permits.read(Some(MAX_BODY_BYTES), body)))
        })
        .collect();
    for (_, read) in &mut large {
        assert!(read.as_mut().now_or_never().is_none());
    }
    // The last body has no large permit yet, and holds no medium permit either.
    assert_eq!(permits.large.available_permits(), 0);
    assert_eq!(permits.medium.available_permits(), MEDIUM_BODY_PERMITS);
    let medium = permits.read(Some(MEDIUM_BODY_BYTES), Body::from(bytes(MEDIUM_BODY_BYTES)));
    assert!(medium.now_or_never().unwrap().is_ok());
    let small = permits.read(None, Body::from(bytes(SMALL_BODY_BYTES)));
    let small = small.now_or_never().unwrap().ok().unwrap();
    assert!(small.permit.is_none());

    large[0].0 = None;
    let first = large[0].1.as_mut().now_or_never().unwrap().ok().unwrap();
    large[LARGE_BODY_PERMITS].0 = None;
    assert!(
        large[LARGE_BODY_PERMITS].1.as_mut().now_or_never().is_none(),
        "a complete body still holds its permit"
    );
    drop(first);
    assert!(
        large[LARGE_BODY_PERMITS]
            .1
            .as_mut()
            .now_or_never()
            .unwrap()
            .is_ok()
    );
}

#[tokio::test]
async fn concurrent_bodies_of_unknown_length_do_not_deadlock() {
    let permits = BodyPermits::new();
    let reads: Vec<_> = (0..3 * MEDIUM_BODY_PERMITS)
        .map(|_| {
            let chunks = (0..40).map(|_| Ok::<_, Infallible>(bytes(SMALL_BODY_BYTES)));
            let slow = stream::iter(chunks).then(async |chunk| {
                tokio::task::yield_now().await;
                chunk
            });
            permits.read(None, Body::from_stream(slow))
        })
        .collect();
    let all = join_all(reads.into_iter().map(async |read| length(read.await).await));
    let all = tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    assert!(all.iter().all(|length| *length == Ok(40 * SMALL_BODY_BYTES)));
    assert_eq!(permits.large.available_permits(), LARGE_BODY_PERMITS);
    assert_eq!(permits.medium.available_permits(), MEDIUM_BODY_PERMITS);
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_with_or_without_content_length() {
    let permits = BodyPermits::new();
    for content_length in [Some(MAX_BODY_BYTES + 1), None] {
        let chunks = (0..400).map(|_| Ok::<_, Infallible>(bytes(SMALL_BODY_BYTES)));
        let read = permits
            .read(content_length, Body::from_stream(stream::iter(chunks)))
            .await;
        assert_eq!(length(read).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
