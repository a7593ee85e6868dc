use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An issue that takes a while, fails the first `failures` times, and is counted.
struct Upstream {
    tries: AtomicUsize,
    failures: usize,
    problem: Problem,
}

impl Upstream {
    fn failing(failures: usize, reason: Reason) -> Arc<Self> {
        Arc::new(Self {
            tries: AtomicUsize::new(0),
            failures,
            problem: Problem::new(reason, "as asked"),
        })
    }

    fn join(self: &Arc<Self>, flights: &Flights, inputs_hash: &str) -> Passenger {
        let upstream = self.clone();
        let issue = move |_| {
            let upstream = upstream.clone();
            async move {
                let tries = upstream.tries.fetch_add(1, Ordering::SeqCst);
                sleep(Duration::from_millis(100)).await;
                if tries < upstream.failures {
                    Err(upstream.problem.clone())
                } else {
                    Ok(())
                }
            }
        };
        let anew = Arc::new(Order::example(inputs_hash));
        let refresh = move |()| std::future::ready(Ok(anew.clone()));
        flights.join(Arc::new(Order::example(inputs_hash)), issue, refresh, true)
    }

    fn tries(&self) -> usize {
        self.tries.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_pods_share_one_flight() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(0, Reason::EntraUnavailable));
    let passengers: Vec<_> = (0..200).map(|_| upstream.join(&flights, "a")).collect();
    for passenger in passengers {
        passenger.outcome().await.unwrap();
    }
    // One that comes before the watch has shown the result takes it from the flight.
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.tries(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_whose_success_is_forgotten_is_not_joined_but_one_under_way_is() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(0, Reason::EntraUnavailable));
    let order = Order::example("a");
    let first = upstream.join(&flights, "a");
    sleep(Duration::from_millis(50)).await;
    flights.forget_success(&order);
    let second = upstream.join(&flights, "a");
    first.outcome().await.unwrap();
    second.outcome().await.unwrap();
    assert_eq!(upstream.tries(), 1);
    flights.forget_success(&order);
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_at_once_and_tried_again_until_it_ends() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(3, Reason::EntraUnavailable));
    let first = upstream.join(&flights, "a").outcome().await;
    assert_eq!(first.unwrap_err().reason, Reason::EntraUnavailable);
    // A burst during the wait learns of the failure and causes no further try.
    for _ in 0..50 {
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
    }
    assert_eq!(upstream.tries(), 1);
    let passenger = upstream.join(&flights, "a");
    let mut state = passenger.state.clone();
    state
        .wait_for(|s| matches!(s, State::Landed(Ok(()))))
        .await
        .unwrap();
    assert_eq!(upstream.tries(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_after_the_pause_starts_the_next_try_and_waits_for_it() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(3, Reason::EntraThrottled));
    // Without Pods the waits grow; each Pod after the shortest wait brings the next try forward.
    let mut shortest = MIN_RETRY;
    for tries in 1..=3 {
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
        assert_eq!(upstream.tries(), tries);
        sleep(shortest - Duration::from_secs(1)).await;
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
        assert_eq!(
            upstream.tries(),
            tries,
            "not before the shortest wait, which grows"
        );
        sleep(Duration::from_secs(1)).await;
        shortest *= 2;
    }
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.tries(), 4);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_tried_any_more_for_what_is_gone() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(9, Reason::EntraUnavailable));
    assert!(upstream.join(&flights, "a").outcome().await.is_err());
    flights.forget("team-a", "acr-pull-contoso-app");
    sleep(MAX_RETRY * 3).await;
    assert_eq!(upstream.tries(), 1);

    let (flights, upstream) = (Flights::default(), Upstream::failing(9, Reason::EntraUnavailable));
    let passenger = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    flights.forget("team-a", "acr-pull-contoso-app");
    assert!(passenger.outcome().await.is_err());
    sleep(MAX_RETRY * 3).await;
    assert_eq!(upstream.tries(), 1, "forgotten during the first try");

    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let issue = move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Err(Problem::new(Reason::EntraUnavailable, "down")))
    };
    let gone = |()| std::future::ready(Err(Problem::new(Reason::GeneratorNotFound, "gone")));
    let passenger = flights.join(Arc::new(Order::example("a")), issue, gone, true);
    let mut state = passenger.state.clone();
    state
        .wait_for(|s| matches!(s, State::Landed(Err(_))))
        .await
        .unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_with_back_off_and_never_longer_than_a_person_waits() {
    let (flights, upstream) = (
        Flights::default(),
        Upstream::failing(usize::MAX, Reason::EntraRefused),
    );
    // Ten creations a second, as a controller or a forger makes them.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        let outcome = upstream.join(&flights, "a").outcome().await;
        assert_eq!(outcome.unwrap_err().reason, Reason::EntraRefused);
        sleep(Duration::from_millis(100)).await;
    }
    assert!(
        (8..=16).contains(&upstream.tries()),
        "{} in five minutes",
        upstream.tries()
    );
    // The object of a refusal is deleted at once; that changes nothing.
    let tries = upstream.tries();
    upstream.join(&flights, "a").outcome().await.unwrap_err();
    flights.forget("team-a", "acr-pull-contoso-app");
    upstream.join(&flights, "a").outcome().await.unwrap_err();
    assert!(upstream.tries() <= tries + 1);
    // Other inputs are tried at once, and begin with the shortest wait.
    let tries = upstream.tries();
    upstream.join(&flights, "b").outcome().await.unwrap_err();
    sleep(MIN_REFUSAL).await;
    upstream.join(&flights, "b").outcome().await.unwrap_err();
    assert_eq!(upstream.tries(), tries + 2);
    // What was mended is found out within the longest wait, and the refusals are forgotten.
    let mended = Upstream::failing(0, Reason::EntraRefused);
    sleep(MAX_REFUSAL).await;
    mended.join(&flights, "b").outcome().await.unwrap();
    assert!(flights.lock().refusals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn trouble_of_our_own_api_server_is_remembered_for_a_moment_only() {
    let (flights, upstream) = (
        Flights::default(),
        Upstream::failing(3, Reason::ApiServerUnavailable),
    );
    for tries in 1..=3 {
        let issue = {
            let upstream = upstream.clone();
            move |_| {
                upstream.tries.fetch_add(1, Ordering::SeqCst);
                std::future::ready(Err(upstream.problem.clone()))
            }
        };
        let refresh = |()| std::future::ready(Err(interrupted()));
        let order = Arc::new(Order::example("a"));
        flights
            .join(order, issue, refresh, false)
            .outcome()
            .await
            .unwrap_err();
        assert_eq!(upstream.tries(), tries);
        sleep(MIN_REFUSAL).await;
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_an_end_to_the_refusals_that_are_remembered() {
    let flights = Flights::default();
    for n in 0..MOST_REFUSALS + 100 {
        let mut order = Order::example("a");
        order.rename(&format!("acr-pull-{n}"));
        let issue = |_| std::future::ready(Err(Problem::new(Reason::EntraRefused, "no")));
        let refresh = |()| std::future::ready(Err(interrupted()));
        flights
            .join(Arc::new(order), issue, refresh, false)
            .outcome()
            .await
            .unwrap_err();
    }
    assert_eq!(flights.lock().refusals.len(), MOST_REFUSALS);
    sleep(Duration::from_millis(1)).await;
    assert!(flights.lock().flights.is_empty());
}

#[test]
fn a_flight_that_waits_is_small() {
    let flights = Flights::default();
    let (state, _) = watch::channel(State::Flying);
    let large = |_| async {
        let room = [0_u8; 16 * 1024];
        std::future::ready(()).await;
        match room[0] {
            0 => Ok(()),
            _ => Err(interrupted()),
        }
    };
    let flight = flights.flight(FlightPlan {
        key: Key::default(),
        before: None,
        order: Arc::new(Order::example("a")),
        issue: large,
        refresh: |()| std::future::ready(Err(interrupted())),
        keep_trying: true,
        state,
        place: Progress::default(),
        retry_now: Arc::default(),
    });
    let size = size_of_val(&flight);
    assert!(size <= 1536, "{size} bytes");
}

#[tokio::test(start_paused = true)]
async fn changed_inputs_start_a_flight_of_their_own_after_the_one_under_way() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(0, Reason::EntraRefused));
    let old = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    upstream.join(&flights, "b").outcome().await.unwrap();
    old.outcome().await.unwrap();
    assert_eq!(upstream.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_object_deleted_during_a_flight_is_not_taken_for_written() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(0, Reason::EntraRefused));
    let passenger = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    flights.forget("team-a", "acr-pull-contoso-app");
    passenger.outcome().await.unwrap();
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.tries(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_forgotten() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(0, Reason::EntraRefused));
    upstream.join(&flights, "a").outcome().await.unwrap();
    flights.forget("team-a", "acr-pull-contoso-app");
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.tries(), 2);
}
