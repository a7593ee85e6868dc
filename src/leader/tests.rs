//! Elections in paused time against a minimal API server, for situations that a real API server (see
//! tests/integration/leader.rs) cannot produce on demand.

mod world;

use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::sync::atomic::Ordering;
use world::*;

#[tokio::test(start_paused = true)]
async fn an_unfit_replica_does_not_run_for_leader_and_releases_the_leadership() {
    let world = World::default();
    let first = world.start(0);
    first.fit.store(false, Ordering::Relaxed);
    sleep(2 * LEASE_DURATION).await;
    assert_eq!(
        world.0.lock().writes.len(),
        0,
        "an unfit replica does not run for leader"
    );
    first.fit.store(true, Ordering::Relaxed);
    world.led_by(|n| n == 0).await;
    let _second = world.start(1);
    sleep(10 * RETRY_PERIOD).await;
    first.fit.store(false, Ordering::Relaxed);
    let unfit = Instant::now();
    world.led_by(|n| n == 1).await;
    // The Lease was released, so the successor does not wait for it to expire.
    assert!(
        unfit.elapsed() <= 2 * RETRY_PERIOD + 2 * STEP,
        "{:?}",
        unfit.elapsed()
    );
    world.assert_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn the_first_replica_leads_and_keeps_renewing() {
    let world = World::default();
    let processes = [0, 1, 2].map(|n| world.start(n));
    world.led_by(|_| true).await;
    sleep(20 * LEASE_DURATION).await;
    assert_eq!(world.0.lock().leaderships.len(), 1);
    drop(processes);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_its_successor_starts() {
    for link in [Link::Cut, Link::Refused] {
        let world = World::default();
        let first = world.start(0);
        world.led_by(|n| n == 0).await;
        let _second = world.start(1);
        sleep(10 * RETRY_PERIOD).await;
        first.link(link);
        let (renewed, ..) = world.last_write();
        world.led_by(|n| n == 1).await;
        let (last, next) = (*world.steps_of(0).last().unwrap(), world.steps_of(1)[0]);
        assert!(last < renewed + RENEW_DEADLINE, "{link:?}: worked too long");
        assert!(
            world.0.lock().dropped[0] <= renewed + RENEW_DEADLINE + STEP,
            "{link:?}: the work was not dropped"
        );
        assert!(
            last + 2 * STEP > renewed + RENEW_DEADLINE,
            "{link:?}: gave up too early"
        );
        assert!(next >= renewed + LEASE_DURATION, "{link:?}: took over too early");
        assert!(
            next < renewed + LEASE_DURATION + 3 * RETRY_PERIOD,
            "{link:?}: took over too late"
        );
        world.assert_no_overlap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_renew_deadline_counts_from_the_request_not_from_the_response() {
    let world = World::default();
    let process = world.start(0);
    world.led_by(|n| n == 0).await;
    process.link(Link::Slow);
    let (before, ..) = world.last_write();
    world.written().await;
    process.link(Link::Cut);
    let (asked, ..) = world.last_write();
    sleep(2 * LEASE_DURATION).await;
    let last = *world.steps_of(0).last().unwrap();
    assert!(
        last >= before + RENEW_DEADLINE,
        "the slow answer counted as a renewal"
    );
    assert!(last < asked + RENEW_DEADLINE);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_leader_does_no_work_after_it_resumes() {
    let world = World::default();
    let processes = [0, 1].map(|n| world.start(n));
    world.led_by(|_| true).await;
    let leader = world.leader().unwrap();
    processes[leader].stop();
    world.led_by(|n| n != leader).await;
    let before = world.steps_of(0);
    processes[leader].resume();
    sleep(LEASE_DURATION).await;
    assert_eq!(world.steps_of(0), before);
    assert_ne!(world.leader(), Some(leader));
    world.assert_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn a_long_suspended_leader_starts_a_new_leadership() {
    let world = World::default();
    let process = world.start(0);
    world.led_by(|_| true).await;
    process.stop();
    sleep(10 * LEASE_DURATION).await;
    let before = world.steps_of(0);
    process.resume();
    world.led_by(|_| true).await;
    assert_eq!(world.steps_of(0), before);
    assert_eq!(world.0.lock().leaderships.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_acquired_by_an_unanswered_write_is_used_immediately() {
    let world = World::default();
    let process = world.start(0);
    process.link(Link::Mute);
    world.written().await;
    process.link(Link::Up);
    let (written, ..) = world.last_write();
    world.led_by(|_| true).await;
    assert!(Instant::now() < written + RENEW_DEADLINE / 2 + 2 * RETRY_PERIOD);
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_released_after_the_work_has_stopped() {
    let world = World::default();
    let first = world.start(0);
    world.led_by(|n| n == 0).await;
    let _second = world.start(1);
    sleep(RETRY_PERIOD).await;
    first.terminate().await;
    let (released, holder, working) = world.last_write();
    assert_eq!((holder.as_str(), working), ("", 0));
    world.led_by(|n| n == 1).await;
    assert!(Instant::now() <= released + RETRY_PERIOD + STEP);
    world.assert_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_shuts_down_during_a_renewal_releases_the_lease() {
    let world = World::default();
    let process = world.start(0);
    world.led_by(|_| true).await;
    process.link(Link::Mute);
    world.written().await;
    process.link(Link::Up);
    process.terminate().await;
    assert_eq!(world.last_write().1, "");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_does_not_lead_shuts_down_without_writing_the_lease() {
    let world = World::default();
    let _first = world.start(0);
    world.led_by(|n| n == 0).await;
    let second = world.start(1);
    sleep(RETRY_PERIOD).await;
    second.terminate().await;
    assert_eq!(world.last_write().1, "process-0");
    assert_eq!(world.leader(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn shutdown_does_not_wait_for_an_api_server_that_does_not_answer() {
    let world = World::default();
    let process = world.start(0);
    world.led_by(|_| true).await;
    process.link(Link::Cut);
    let asked = Instant::now();
    process.terminate().await;
    assert!(asked.elapsed() <= RENEW_DEADLINE / 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_by_itself_releases_the_leadership() {
    let world = World::default();
    let _process = world.start_with(0, |number| number == 0);
    world.written().await;
    world.eventually(|world| world.last_write().1.is_empty()).await;
    // The replica then runs for leader again.
    world.led_by(|n| n == 0).await;
    assert_eq!(world.0.lock().leaderships.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_created_again_by_the_leader() {
    let world = World::default();
    let _process = world.start(0);
    world.led_by(|_| true).await;
    world.0.lock().lease = None;
    sleep(LEASE_DURATION).await;
    let inner = world.0.lock();
    assert!(inner.lease.is_some());
    assert_eq!(inner.leaderships.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_names_another_holder_stops_at_its_next_renewal() {
    let world = World::default();
    let _process = world.start(0);
    world.led_by(|_| true).await;
    {
        let mut inner = world.0.lock();
        inner.version += 1;
        let version = inner.version.to_string();
        let lease = inner.lease.as_mut().unwrap();
        lease["metadata"]["resourceVersion"] = json!(version);
        lease["spec"]["holderIdentity"] = json!("somebody");
    }
    sleep(RETRY_PERIOD + STEP).await;
    assert_eq!(world.leader(), None);
    sleep(LEASE_DURATION / 2).await;
    assert_eq!(world.0.lock().working, 0);
}

#[derive(Clone, Debug)]
enum Event {
    Link(usize, Link),
    Stop(usize),
    Resume(usize),
    /// In milliseconds.
    Pass(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let link = prop_oneof![
        Just(Link::Up),
        Just(Link::Cut),
        Just(Link::Late),
        Just(Link::Mute),
        Just(Link::Slow),
        Just(Link::Refused)
    ];
    prop_oneof![
        (0..3usize, link).prop_map(|(n, link)| Event::Link(n, link)),
        (0..3usize).prop_map(Event::Stop),
        (0..3usize).prop_map(Event::Resume),
        (1..4_000u64).prop_map(Event::Pass),
        (1..4_000u64).prop_map(Event::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn at_most_one_replica_leads_and_eventually_one_does(
        events in prop::collection::vec(event(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let world = World::default();
            let processes = [0, 1, 2].map(|n| world.start(n));
            for event in events {
                match event {
                    Event::Link(n, link) => processes[n].link(link),
                    Event::Stop(n) => processes[n].stop(),
                    Event::Resume(n) => processes[n].resume(),
                    Event::Pass(millis) => sleep(Duration::from_millis(millis)).await,
                }
                world.assert_no_overlap();
            }
            for process in &processes {
                process.link(Link::Up);
                process.resume();
            }
            sleep(2 * LEASE_DURATION).await;
            world.assert_no_overlap();
            assert!(world.leader().is_some());
        });
    }
}
