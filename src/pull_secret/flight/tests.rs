use super::{
    retry::{MAX_DELAY, MIN_DELAY},
    *,
};
use std::{
    future::ready,
    sync::atomic::{AtomicUsize, Ordering},
};

type TestFlights = Flights<&'static str, &'static str>;

/// A job that takes a while, fails the first `failures` times, and counts its attempts.
#[derive(Clone)]
struct Upstream {
    attempts: Arc<AtomicUsize>,
    failures: usize,
    failure: Reason,
    duration: Duration,
    retries: Retries,
    /// The outcome of a refresh.
    refreshed: Result<(), Problem>,
}

impl Upstream {
    fn failing(failures: usize, failure: Reason) -> Self {
        Self {
            attempts: Arc::default(),
            failures,
            failure,
            duration: Duration::from_millis(100),
            retries: Retries::Unlimited,
            refreshed: Ok(()),
        }
    }

    fn join(&self, flights: &TestFlights, version: &'static str) -> Waiter {
        flights.join("app", version, self.clone())
    }

    fn attempts(&self) -> usize {
        self.attempts.load(Ordering::SeqCst)
    }
}

impl Job for Upstream {
    async fn attempt(&self, _: Progress) -> Result<(), Problem> {
        let attempts = self.attempts.fetch_add(1, Ordering::SeqCst);
        if !self.duration.is_zero() {
            sleep(self.duration).await;
        }
        if attempts < self.failures {
            Err(Problem::new(self.failure, "as the test asked"))
        } else {
            Ok(())
        }
    }

    fn refresh(&mut self) -> impl Future<Output = Result<(), Problem>> + Send {
        ready(self.refreshed.clone())
    }

    fn retries(&self) -> Retries {
        self.retries
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_callers_share_one_flight() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(0, Reason::EntraUnavailable);
    let waiters: Vec<_> = (0..200).map(|_| upstream.join(&flights, "a")).collect();
    for mut waiter in waiters {
        waiter.outcome().await.unwrap();
    }
    // A caller that arrives before the watch shows the result takes it from the flight.
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_success_is_not_joined_and_a_flight_under_way_is() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(0, Reason::EntraUnavailable);
    let mut first = upstream.join(&flights, "a");
    sleep(Duration::from_millis(50)).await;
    flights.forget_success(&"app");
    let mut second = upstream.join(&flights, "a");
    first.outcome().await.unwrap();
    second.outcome().await.unwrap();
    assert_eq!(upstream.attempts(), 1);
    flights.forget_success(&"app");
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.attempts(), 2);
}

/// The attempts that are made while the first caller waits.
const QUICK_ATTEMPTS: usize = 3;

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_the_quick_retries_after_a_short_failure() {
    for policy in [Retries::Quick, Retries::Unlimited] {
        let flights = TestFlights::default();
        let upstream = Upstream {
            retries: policy,
            ..Upstream::failing(QUICK_ATTEMPTS - 1, Reason::RegistryUnavailable)
        };
        let start = Instant::now();
        let mut waiter = upstream.join(&flights, "a");
        assert_eq!(waiter.last_problem(), None);
        waiter.outcome().await.unwrap();
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_before_a_retry_learns_the_last_problem() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(9, Reason::RegistryUnavailable);
    let mut waiter = upstream.join(&flights, "a");
    let given_up = tokio::time::timeout(Duration::from_millis(500), waiter.outcome()).await;
    assert!(given_up.is_err(), "the flight retries in a moment");
    let problem = waiter.last_problem().unwrap();
    assert_eq!(problem.reason, Reason::RegistryUnavailable);
}

#[tokio::test(start_paused = true)]
async fn quick_retries_end_a_flight_that_makes_no_others() {
    let flights = TestFlights::default();
    let upstream = Upstream {
        retries: Retries::Quick,
        ..Upstream::failing(9, Reason::RegistryUnavailable)
    };
    assert!(upstream.join(&flights, "a").outcome().await.is_err());
    sleep(MAX_DELAY * 3).await;
    assert_eq!(upstream.attempts(), QUICK_ATTEMPTS);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_reported_after_the_quick_retries_and_retried_until_it_ends() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(QUICK_ATTEMPTS + 2, Reason::EntraUnavailable);
    let first = upstream.join(&flights, "a").outcome().await;
    assert_eq!(first.unwrap_err().reason, Reason::EntraUnavailable);
    // A burst during the back-off gets the failure and causes no further attempt.
    let start = Instant::now();
    for _ in 0..50 {
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
    }
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "nobody waits during the back-off"
    );
    assert_eq!(upstream.attempts(), QUICK_ATTEMPTS);
    let waiter = upstream.join(&flights, "a");
    let mut state = waiter.state.clone();
    state
        .wait_for(|s| matches!(s, State::Finished(Ok(()))))
        .await
        .unwrap();
    assert_eq!(upstream.attempts(), QUICK_ATTEMPTS + 3);
}

#[tokio::test(start_paused = true)]
async fn a_caller_after_the_shortest_delay_starts_the_next_attempt_and_waits_for_it() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(QUICK_ATTEMPTS + 2, Reason::EntraThrottled);
    // Without callers the delays grow; a caller after the shortest delay brings the next attempt forward.
    let mut min_delay = MIN_DELAY;
    for attempts in QUICK_ATTEMPTS..QUICK_ATTEMPTS + 3 {
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
        assert_eq!(upstream.attempts(), attempts);
        sleep(min_delay - Duration::from_secs(1)).await;
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
        assert_eq!(
            upstream.attempts(),
            attempts,
            "not before the shortest delay, which grows"
        );
        sleep(Duration::from_secs(1)).await;
        min_delay *= 2;
    }
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.attempts(), QUICK_ATTEMPTS + 3);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_flight_is_not_retried() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(9, Reason::EntraUnavailable);
    assert!(upstream.join(&flights, "a").outcome().await.is_err());
    flights.forget(&"app");
    sleep(MAX_DELAY * 3).await;
    assert_eq!(
        upstream.attempts(),
        QUICK_ATTEMPTS,
        "forgotten during the back-off"
    );

    let flights = TestFlights::default();
    let upstream = Upstream::failing(9, Reason::EntraUnavailable);
    let mut waiter = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    flights.forget(&"app");
    assert!(waiter.outcome().await.is_err());
    sleep(MAX_DELAY * 3).await;
    assert_eq!(upstream.attempts(), 1, "forgotten during the first attempt");
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_is_refused_ends_the_flight() {
    let flights = TestFlights::default();
    let upstream = Upstream {
        refreshed: Err(Problem::new(Reason::GeneratorNotFound, "gone")),
        ..Upstream::failing(9, Reason::EntraUnavailable)
    };
    let mut state = upstream.join(&flights, "a").state;
    let ended = state.wait_for(|s| matches!(s, State::Finished(Err(_)))).await;
    ended.unwrap();
    assert_eq!(upstream.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_with_back_off_and_for_30_seconds_at_most() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(usize::MAX, Reason::EntraRefused);
    // Ten creations a second, as a controller makes them.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(300) {
        let outcome = upstream.join(&flights, "a").outcome().await;
        assert_eq!(outcome.unwrap_err().reason, Reason::EntraRefused);
        sleep(Duration::from_millis(100)).await;
    }
    let attempts = upstream.attempts();
    assert!((8..=16).contains(&attempts), "{attempts} in five minutes");
    // The object of a refusal is deleted immediately; the refusal stays.
    upstream.join(&flights, "a").outcome().await.unwrap_err();
    flights.forget(&"app");
    upstream.join(&flights, "a").outcome().await.unwrap_err();
    assert!(upstream.attempts() <= attempts + 1);
    // Another version is attempted immediately, and begins with the shortest refusal.
    let attempts = upstream.attempts();
    upstream.join(&flights, "b").outcome().await.unwrap_err();
    sleep(MIN_REFUSAL_TTL).await;
    upstream.join(&flights, "b").outcome().await.unwrap_err();
    assert_eq!(upstream.attempts(), attempts + 2);
    // A correction is found within the longest refusal, and the success forgets the refusals.
    sleep(MAX_REFUSAL_TTL).await;
    let corrected = Upstream::failing(0, Reason::EntraRefused);
    corrected.join(&flights, "b").outcome().await.unwrap();
    assert!(flights.0.lock().refusals.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_api_server_is_remembered_without_back_off() {
    let flights = TestFlights::default();
    let upstream = Upstream {
        retries: Retries::Never,
        duration: Duration::ZERO,
        ..Upstream::failing(3, Reason::ApiServerUnavailable)
    };
    for attempts in 1..=3 {
        upstream.join(&flights, "a").outcome().await.unwrap_err();
        assert_eq!(upstream.attempts(), attempts);
        sleep(MIN_REFUSAL_TTL).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_number_of_remembered_refusals_is_bounded() {
    let flights = Flights::<usize, ()>::default();
    for key in 0..MAX_REFUSALS + 100 {
        let upstream = Upstream {
            duration: Duration::ZERO,
            ..Upstream::failing(1, Reason::EntraRefused)
        };
        flights.join(key, (), upstream).outcome().await.unwrap_err();
    }
    assert_eq!(flights.0.lock().refusals.len(), MAX_REFUSALS);
    sleep(Duration::from_millis(1)).await;
    assert!(flights.0.lock().flights.is_empty());
}

#[test]
fn a_flight_between_two_attempts_is_small() {
    /// A job whose attempt is large.
    struct Large;

    impl Job for Large {
        async fn attempt(&self, _: Progress) -> Result<(), Problem> {
            let room = [0_u8; 16 * 1024];
            ready(()).await;
            if room[0] == 0 { Ok(()) } else { Err(interrupted()) }
        }

        async fn refresh(&mut self) -> Result<(), Problem> {
            Ok(())
        }

        fn retries(&self) -> Retries {
            Retries::Unlimited
        }
    }

    let (state, _) = watch::channel(State::Attempting(None));
    let controls = Controls {
        key: "app",
        version: "a",
        state,
        progress: Progress::default(),
        retry_now: Arc::default(),
    };
    let size = size_of_val(&TestFlights::default().fly(None, Large, controls));
    assert!(size <= 1536, "{size} bytes");
}

#[tokio::test(start_paused = true)]
async fn another_version_starts_after_the_flight_under_way() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(0, Reason::EntraRefused);
    let mut old = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    assert!(flights.has_other_version(&"app", &"b"));
    upstream.join(&flights, "b").outcome().await.unwrap();
    old.outcome().await.unwrap();
    assert_eq!(upstream.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_flight_whose_object_is_deleted_is_not_joined() {
    let flights = TestFlights::default();
    let upstream = Upstream::failing(0, Reason::EntraRefused);
    let mut waiter = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    flights.forget(&"app");
    waiter.outcome().await.unwrap();
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.attempts(), 2, "deleted during the attempt");
    flights.forget(&"app");
    upstream.join(&flights, "a").outcome().await.unwrap();
    assert_eq!(upstream.attempts(), 3, "deleted after the success");
}
