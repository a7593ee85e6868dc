use super::*;
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
        place: Place::default(),
    }
}

fn admission(namespace: &str) -> Caller {
    caller(namespace, Lane::Admission)
}

fn unreachable(reason: Reason) -> Problem {
    Problem::new(reason, "h was not reached: no answer in time").unreachable()
}

/// A call without an answer, which takes as long as one takes.
async fn hang(gates: &Gates, caller: &Caller, host: &str, made: &AtomicUsize) -> Result<(), Problem> {
    let call = async {
        made.fetch_add(1, Ordering::SeqCst);
        sleep(Duration::from_secs(10)).await;
        Err(unreachable(Reason::RegistryUnavailable))
    };
    gates.call(caller, host, host, call).await
}

async fn answer(gates: &Gates, caller: &Caller, host: &str) -> Result<(), Problem> {
    let call = async {
        sleep(Duration::from_millis(100)).await;
        Ok(())
    };
    gates.call(caller, host, host, call).await
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_delays_no_call_to_another_one() {
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
    // The first ones ran into their time-out; all others failed with them.
    assert_eq!(made.load(Ordering::SeqCst), 6);
    assert!(start.elapsed() < Duration::from_secs(11), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_breaker_opens_probes_one_at_a_time_with_back_off_and_closes_on_an_answer() {
    let (gates, made) = (gates(64), AtomicUsize::new(0));
    let a = admission("a");
    for _ in 0..UNANSWERED {
        assert!(!gates.is_closed("h"));
        hang(&gates, &a, "h", &made).await.unwrap_err();
    }
    assert!(gates.is_closed("h"));
    let mut probes = Vec::new();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        let before = made.load(Ordering::SeqCst);
        let many = join_all((0..10).map(|_| hang(&gates, &a, "h", &made))).await;
        assert!(
            many.iter()
                .all(|f| f.as_ref().unwrap_err().message.contains("was not reached"))
        );
        let now = made.load(Ordering::SeqCst);
        assert!(now - before <= 1, "one probe at a time");
        if now > before {
            probes.push(start.elapsed().as_secs());
        }
        advance(Duration::from_secs(1)).await;
    }
    assert!((6..=12).contains(&probes.len()), "{probes:?}");
    advance(MAX_BREAK).await;
    answer(&gates, &a, "h").await.unwrap();
    assert!(!gates.is_closed("h"));
    answer(&gates, &a, "h").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_nobody_waits_for_any_more_leaves_room_for_the_next() {
    let (gates, made) = (gates(4), AtomicUsize::new(0));
    let a = admission("a");
    for _ in 0..UNANSWERED {
        hang(&gates, &a, "h", &made).await.unwrap_err();
    }
    advance(MIN_BREAK).await;
    let given_up = tokio::time::timeout(Duration::from_secs(1), hang(&gates, &a, "h", &made)).await;
    assert!(given_up.is_err());
    answer(&gates, &a, "h").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_between_failures_keep_a_host_open() {
    let (gates, made) = (gates(4), AtomicUsize::new(0));
    let a = admission("a");
    for _ in 0..10 {
        for _ in 1..UNANSWERED {
            hang(&gates, &a, "h", &made).await.unwrap_err();
        }
        // A refusal is an answer too.
        let refusal = async { Err::<(), _>(Problem::new(Reason::RegistryRefused, "401")) };
        gates.call(&a, "h", "h", refusal).await.unwrap_err();
    }
    assert!(!gates.is_closed("h"));
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_was_asked_for_holds_for_its_subject_alone_and_has_an_end() {
    let gates = gates(4);
    let a = admission("a");
    let throttled = |wait: u64| async move {
        let problem = Problem::new(Reason::EntraThrottled, "h asks us to slow down");
        Err::<(), _>(problem.retry_after(Some(Duration::from_secs(wait))))
    };
    gates.call(&a, "h", "one", throttled(60)).await.unwrap_err();
    let refused = gates.call(&a, "h", "one", async { Ok(()) }).await.unwrap_err();
    assert_eq!(refused.reason, Reason::EntraThrottled);
    assert_eq!(refused.retry_after, Some(Duration::from_secs(60)));
    assert!(refused.message.contains("again in 60 s"), "{refused}");
    gates.call(&a, "h", "other", async { Ok(()) }).await.unwrap();
    advance(Duration::from_secs(60)).await;
    gates.call(&a, "h", "one", async { Ok(()) }).await.unwrap();
    // No host stops us for a year.
    gates.call(&a, "h", "one", throttled(u64::MAX)).await.unwrap_err();
    advance(*PAUSE.end()).await;
    gates.call(&a, "h", "one", async { Ok(()) }).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn renewals_have_permits_that_admissions_cannot_take() {
    let gates = gates(4);
    let slow = |caller: Caller| {
        let gates = &gates;
        async move {
            let call = async {
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
    // Nobody waits for ever, and who gave up was told that it waited.
    let late: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
    assert!(!late.is_empty());
    assert!(
        late.iter()
            .all(|p| p.reason == Reason::UpstreamTimeout && p.message.contains("turn"))
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_where_the_time_went() {
    let gates = gates(1);
    let (first, second) = (admission("a"), admission("b"));
    let made = AtomicUsize::new(0);
    let calls = async {
        tokio::join!(
            hang(&gates, &first, "h", &made),
            hang(&gates, &second, "h", &made)
        )
    };
    let look = async {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(first.place.stage(), Stage::Host("h".into()));
        assert_eq!(second.place.stage(), Stage::Queue("h".into()));
        sleep(Duration::from_secs(30)).await;
        assert_eq!(second.place.stage(), Stage::Kubernetes);
    };
    let (outcomes, ()) = tokio::join!(calls, look);
    assert!(outcomes.0.is_err() && outcomes.1.is_err());
    let reason = |stage| late(&stage).reason;
    assert_eq!(reason(Stage::Kubernetes), Reason::ApiServerUnavailable);
    for upstream in [
        Stage::Queue("h".into()),
        Stage::Host("h".into()),
        Stage::Predecessor,
    ] {
        assert_eq!(reason(upstream), Reason::UpstreamTimeout);
    }
}

#[tokio::test(start_paused = true)]
async fn names_of_hosts_and_subjects_that_users_choose_are_not_kept_for_ever() {
    let gates = gates(4);
    let a = admission("a");
    for n in 0..2 * MOST_PAUSES {
        let name = format!("h-{n}");
        let throttled = async {
            let problem = Problem::new(Reason::RegistryThrottled, "slow down");
            Err::<(), _>(problem.retry_after(Some(Duration::from_secs(60))))
        };
        gates.call(&a, &name, &name, throttled).await.unwrap_err();
        assert!(gates.0.hosts().len() <= MOST_HOSTS);
        assert!(gates.0.pauses().len() <= MOST_PAUSES);
    }
}
