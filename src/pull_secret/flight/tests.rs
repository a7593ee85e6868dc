use super::*;
use crate::{
    generator::Resolved,
    identity::{Cloud, WorkloadIdentity},
    registry::RegistrySuffixes,
};
use std::sync::atomic::{AtomicUsize, Ordering};

fn order(inputs_hash: &str) -> Order {
    Order {
        namespace: "team-a".to_owned(),
        name: "acr-pull-contoso-app".to_owned(),
        generator: "contoso".to_owned(),
        inputs: Resolved {
            identity: WorkloadIdentity {
                namespace: "team-a".to_owned(),
                service_account: "app".to_owned(),
                client_id: "c".to_owned(),
                tenant_id: "t".to_owned(),
                cloud: Cloud::Public,
            },
            registry: "azurecr.io"
                .parse::<RegistrySuffixes>()
                .unwrap()
                .permit("contoso.azurecr.io")
                .unwrap(),
            scope: None,
        },
        inputs_hash: inputs_hash.to_owned(),
    }
}

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
        flights.join(order(inputs_hash), issue, true)
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
async fn a_pod_that_comes_after_the_pause_starts_the_next_try() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(4, Reason::EntraThrottled));
    for _ in 0..3 {
        assert!(upstream.join(&flights, "a").outcome().await.is_err());
        sleep(MIN_RETRY).await;
    }
    let tries = upstream.tries();
    assert!(upstream.join(&flights, "a").outcome().await.is_err());
    assert!(upstream.tries() > tries || tries >= 4);
    sleep(MIN_RETRY * 2).await;
    upstream.join(&flights, "a").outcome().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_a_moment_only() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(1, Reason::EntraRefused));
    for _ in 0..10 {
        let outcome = upstream.join(&flights, "a").outcome().await;
        assert_eq!(outcome.unwrap_err().reason, Reason::EntraRefused);
    }
    assert_eq!(upstream.tries(), 1);
    sleep(REMEMBER_REFUSAL * 2).await;
    upstream.join(&flights, "a").outcome().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn changed_inputs_start_a_flight_of_their_own() {
    let (flights, upstream) = (Flights::default(), Upstream::failing(0, Reason::EntraRefused));
    let old = upstream.join(&flights, "a");
    sleep(Duration::from_millis(10)).await;
    upstream.join(&flights, "b").outcome().await.unwrap();
    assert!(old.outcome().await.is_err());
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
