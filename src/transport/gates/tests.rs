use super::{super::progress::deadline_exceeded, *};
use crate::problem::Reason;
use futures::future::join_all;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::time::{advance, sleep};

fn gates(limit: u16) -> Gates {
    Gates::new(limit, Metrics::new())
}

fn caller(namespace: &str, lane: Lane) -> Caller {
    Caller {
        namespace: namespace.into(),
        lane,
        progress: Progress::default(),
    }
}

fn admission(namespace: &str) -> Caller {
    caller(namespace, Lane::Admission)
}

fn unreachable(reason: Reason) -> Problem {
    Problem::new(reason, "h was not reached: no answer in time").unreachable()
}

/// A call that gets no response and ends by its timeout.
async fn hang(gates: &Gates, caller: &Caller, host: &str, made: &AtomicUsize) -> Result<(), Problem> {
    let call = || async {
        made.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(10)).await;
        Err(unreachable(Reason::RegistryUnavailable))
    };
    gates.call(caller, host, host, call).await
}

async fn answer(gates: &Gates, caller: &Caller, host: &str) -> Result<(), Problem> {
    let call = || async {
        sleep(Duration::from_millis(100)).await;
        Ok(())
    };
    gates.call(caller, host, host, call).await
}

#[tokio::test(start_paused = true)]
async fn a_hanging_host_does_not_delay_calls_to_other_hosts() {
    let (gates, made) = (gates(8), AtomicUsize::new(0));
    let start = Instant::now();
    let many: Vec<_> = (0..500).map(|n| admission(&format!("n-{}", n % 7))).collect();
    let hanging = join_all(many.iter().map(|caller| hang(&gates, caller, "hangs", &made)));
    let other = async {
        sleep(Duration::from_secs(1)).await;
        let before = Instant::now();
        answer(&gates, &admission("b"), "answers").await.unwrap();
        assert!(before.elapsed() < Duration::from_millis(200));
    };
    let (failed, ()) = tokio::join!(hanging, other);
    assert!(
        failed
            .iter()
            .all(|f| f.as_ref().unwrap_err().reason == Reason::RegistryUnavailable)
    );
    // The first calls timed out; all others then failed immediately.
    assert_eq!(made.load(Ordering::SeqCst), 6);
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_probes_one_call_at_a_time_and_closes_on_a_response() {
    let (gates, made) = (gates(64), AtomicUsize::new(0));
    let a = admission("a");
    for _ in 0..BREAKER_THRESHOLD {
        assert!(!gates.is_unreachable("h"));
        hang(&gates, &a, "h", &made).await.unwrap_err();
    }
    assert!(gates.is_unreachable("h"));
    let mut probes = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        let before = made.load(Ordering::SeqCst);
        let many = join_all((0..10).map(|_| hang(&gates, &a, "h", &made))).await;
        assert!(
            many.iter()
                .all(|f| f.as_ref().unwrap_err().fact.contains("was not reached"))
        );
        let now = made.load(Ordering::SeqCst);
        assert!(now - before <= 1, "one probe at a time");
        if now > before {
            probes.push(start.elapsed().as_secs());
        }
        advance(Duration::from_secs(1)).await;
    }
    assert!((6..=12).contains(&probes.len()), "{probes:?}");
    advance(MAX_BACKOFF).await;
    answer(&gates, &a, "h").await.unwrap();
    assert!(!gates.is_unreachable("h"));
    answer(&gates, &a, "h").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_probe_allows_the_next_one() {
    let (gates, made) = (gates(4), AtomicUsize::new(0));
    let a = admission("a");
    for _ in 0..BREAKER_THRESHOLD {
        hang(&gates, &a, "h", &made).await.unwrap_err();
    }
    advance(MIN_BACKOFF).await;
    let given_up = tokio::time::timeout(Duration::from_secs(1), hang(&gates, &a, "h", &made)).await;
    assert!(given_up.is_err());
    answer(&gates, &a, "h").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn responses_between_failures_keep_the_breaker_closed() {
    let (gates, made) = (gates(4), AtomicUsize::new(0));
    let a = admission("a");
    for _ in 0..10 {
        for _ in 1..BREAKER_THRESHOLD {
            hang(&gates, &a, "h", &made).await.unwrap_err();
        }
        // A refusal is a response too.
        let refusal = || async { Err::<(), _>(Problem::new(Reason::RegistryRefused, "401")) };
        gates.call(&a, "h", "h", refusal).await.unwrap_err();
    }
    assert!(!gates.is_unreachable("h"));
}

#[tokio::test(start_paused = true)]
async fn a_requested_pause_applies_to_its_subject_and_is_bounded() {
    let gates = gates(4);
    let a = admission("a");
    let throttled = |wait: u64| async move {
        let problem = Problem::new(Reason::EntraThrottled, "h asks us to slow down");
        Err::<(), _>(problem.retry_after(Some(Duration::from_secs(wait))))
    };
    gates.call(&a, "h", "one", || throttled(60)).await.unwrap_err();
    let refused = gates.call(&a, "h", "one", || async { Ok(()) }).await.unwrap_err();
    assert_eq!(refused.reason, Reason::EntraThrottled);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(60)));
    assert!(refused.fact.contains("again in 60 s"), "{refused}");
    gates.call(&a, "h", "other", || async { Ok(()) }).await.unwrap();
    advance(Duration::from_secs(60)).await;
    gates.call(&a, "h", "one", || async { Ok(()) }).await.unwrap();
    // A host cannot pause calls for longer than the maximum.
    gates
        .call(&a, "h", "one", || throttled(u64::MAX))
        .await
        .unwrap_err();
    advance(*PAUSE_RANGE.end()).await;
    gates.call(&a, "h", "one", || async { Ok(()) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn admissions_cannot_take_all_permits_from_renewals() {
    let gates = gates(4);
    let slow = |caller: Caller| {
        let gates = &gates;
        async move {
            let call = || async {
                sleep(Duration::from_secs(9)).await;
                Ok(())
            };
            gates.call(&caller, "h", "h", call).await
        }
    };
    let admissions = join_all((0..100).map(|n| slow(admission(&format!("n-{n}")))));
    let renewal = async {
        sleep(Duration::from_millis(1)).await;
        let start = Instant::now();
        answer(&gates, &caller("b", Lane::Renewal), "h").await.unwrap();
        assert!(
            start.elapsed() < Duration::from_millis(200),
            "{:?}",
            start.elapsed()
        );
    };
    let (outcomes, ()) = tokio::join!(admissions, renewal);
    // No call waits for ever, and a call that timed out in the queue reports that.
    let deadline_exceeded: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(!deadline_exceeded.is_empty());
    assert!(
        deadline_exceeded
            .iter()
            .all(|p| p.reason == Reason::QueueTimeout && p.fact.contains("30 s"))
    );
}

#[tokio::test(start_paused = true)]
async fn progress_shows_what_a_call_waits_for() {
    let gates = gates(1);
    let (first, second) = (admission("a"), admission("b"));
    let made = AtomicUsize::new(0);
    let calls = async {
        tokio::join!(
            hang(&gates, &first, "h", &made),
            hang(&gates, &second, "h", &made)
        )
    };
    let queue = Stage::Queue {
        host: "h".into(),
        limit: 1,
    };
    let look = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(first.progress.stage(), Stage::Host("h".into()));
        assert_eq!(second.progress.stage(), queue.clone());
        sleep(Duration::from_secs(30)).await;
        assert_eq!(second.progress.stage(), Stage::Kubernetes);
    };
    let (outcomes, ()) = tokio::join!(calls, look);
    assert!(outcomes.0.is_err() && outcomes.1.is_err());
    let problem = |stage| deadline_exceeded(&stage, Duration::from_secs(7));
    assert_eq!(problem(Stage::Kubernetes).reason, Reason::ApiServerUnavailable);
    for upstream in [Stage::Host("h".into()), Stage::Predecessor] {
        assert_eq!(problem(upstream).reason, Reason::UpstreamTimeout);
    }
    let queued = problem(queue);
    assert_eq!(queued.reason, Reason::QueueTimeout);
    for part in [
        "the call to h waited 7 s",
        "1 concurrent calls",
        "--issue-concurrency",
    ] {
        assert!(queued.fact.contains(part), "{part}: {queued}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_numbers_of_hosts_and_pauses_are_bounded() {
    let gates = gates(4);
    let a = admission("a");
    for n in 0..2 * MAX_PAUSES {
        let name = format!("h-{n}");
        let throttled = || async {
            let problem = Problem::new(Reason::RegistryThrottled, "slow down");
            Err::<(), _>(problem.retry_after(Some(Duration::from_secs(60))))
        };
        gates.call(&a, &name, &name, throttled).await.unwrap_err();
        assert!(gates.0.hosts.lock().len() <= MAX_HOSTS);
        assert!(gates.0.pauses.lock().len() <= MAX_PAUSES);
    }
}
