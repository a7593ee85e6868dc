//! Whole elections in paused time, against an API server of a few lines: what cannot be brought about
//! at will on a real one (tests/integration/leader.rs).

use super::*;
use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::{sync::oneshot, task::JoinHandle};

const LEASE_DURATION: Duration = Duration::from_secs(3);
/// Hardly shorter, and an answer may take half of it: an error in counting is an overlap.
const RENEW_DEADLINE: Duration = Duration::from_millis(2_900);
const RETRY_PERIOD: Duration = Duration::from_millis(250);
const STEP: Duration = Duration::from_millis(10);

/// What the processes share: the Lease, and a record of what happened.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    lease: Option<Value>,
    version: u64,
    /// Every write: when, whose, and how many were working at that moment.
    writes: Vec<(Instant, String, usize)>,
    working: usize,
    /// When work was dropped.
    dropped: Vec<Instant>,
    /// Every term there was, and whose.
    terms: Vec<(usize, Term)>,
    /// Every step of work: when, and in which term.
    steps: Vec<(Instant, usize)>,
}

/// How it is between one process and the API server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    Up,
    /// Requests do not arrive.
    Cut,
    /// They arrive when nobody waits for their answer any more.
    Late,
    /// Writes arrive and are done, but not answered.
    Mute,
    /// The answer takes nearly as long as is waited for.
    Slow,
    Refused,
}

/// One replica.
struct Process {
    link: Arc<Mutex<Link>>,
    gate: Arc<Mutex<Gate>>,
    fit: Arc<AtomicBool>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Gate {
    stopped: bool,
    waker: Option<Waker>,
}

// === impl World ===

impl World {
    fn start(&self, index: usize) -> Process {
        self.start_with(index, |_| false)
    }

    /// A process whose work ends by itself where `ends` says so of its number of terms.
    fn start_with(&self, index: usize, ends: fn(usize) -> bool) -> Process {
        let link = Arc::new(Mutex::new(Link::Up));
        let router = Router::new()
            .fallback(answer)
            .with_state((self.clone(), link.clone()));
        let (shutdown, asked) = oneshot::channel();
        let settings = Settings {
            namespace: "ns".to_owned(),
            identity: format!("process-{index}"),
            lease_duration: LEASE_DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry_period: RETRY_PERIOD,
        };
        let world = self.clone();
        let work = move |term: Term| world.clone().work(index, term, ends);
        let fit = Arc::new(AtomicBool::new(true));
        let is_fit = fit.clone();
        let election = run(
            Client::new(router, "ns"),
            settings,
            Metrics::new(),
            async { drop(asked.await) },
            move || is_fit.load(Ordering::Relaxed),
            work,
        );
        let gate = Arc::new(Mutex::new(Gate::default()));
        Process {
            link,
            gate: gate.clone(),
            fit,
            shutdown: Some(shutdown),
            task: tokio::spawn(Gated(Box::pin(election), gate)),
        }
    }

    /// Takes a step every now and then, and fails when it meets another leader.
    async fn work(self, index: usize, term: Term, ends: fn(usize) -> bool) {
        struct Working(World);
        impl Drop for Working {
            fn drop(&mut self) {
                let mut inner = self.0.0.lock().unwrap();
                inner.working -= 1;
                inner.dropped.push(Instant::now());
            }
        }
        let number = {
            let mut inner = self.0.lock().unwrap();
            inner.working += 1;
            inner.terms.push((index, term));
            inner.terms.len() - 1
        };
        let _working = Working(self.clone());
        while !ends(number) {
            let now = Instant::now();
            self.0.lock().unwrap().steps.push((now, number));
            sleep(STEP).await;
        }
    }

    /// Fails where two processes worked, or had the right to, at the same time.
    fn assert_no_overlap(&self) {
        let inner = self.0.lock().unwrap();
        assert!(inner.terms.iter().filter(|(_, term)| term.still_leads()).count() <= 1);
        assert!(
            inner.steps.is_sorted_by_key(|(_, term)| term),
            "a step after the next term's first: {:?}",
            inner.steps
        );
    }

    /// Waits until such a process leads.
    async fn led_by(&self, such: impl Fn(usize) -> bool) {
        self.eventually(|world| world.leader().is_some_and(&such)).await;
    }

    async fn eventually(&self, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < 10 * LEASE_DURATION, "it never happened");
            sleep(STEP).await;
        }
    }

    /// Waits for the next write.
    async fn written(&self) {
        let before = self.0.lock().unwrap().writes.len();
        self.eventually(|world| world.0.lock().unwrap().writes.len() > before)
            .await;
    }

    /// Which process leads by its own account.
    fn leader(&self) -> Option<usize> {
        let inner = self.0.lock().unwrap();
        let leader = inner.terms.iter().find(|(_, term)| term.still_leads());
        leader.map(|(process, _)| *process)
    }

    fn steps_of(&self, term: usize) -> Vec<Instant> {
        let inner = self.0.lock().unwrap();
        let steps = inner.steps.iter().filter(|(_, of)| *of == term);
        steps.map(|(when, _)| *when).collect()
    }

    /// The last write, by whomever.
    fn last_write(&self) -> (Instant, String, usize) {
        self.0.lock().unwrap().writes.last().unwrap().clone()
    }

    fn serve(&self, method: &Method, lease: Option<Value>) -> Response {
        let mut inner = self.0.lock().unwrap();
        let refused = |code: StatusCode, reason: &str| {
            let status =
                json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "reason": reason});
            reply(code, &status)
        };
        let stored = inner.lease.clone();
        let Some(mut lease) = lease else {
            return match stored {
                Some(lease) => reply(StatusCode::OK, &lease),
                None => refused(StatusCode::NOT_FOUND, "NotFound"),
            };
        };
        match stored {
            None if *method == Method::PUT => return refused(StatusCode::NOT_FOUND, "NotFound"),
            Some(s) if s["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] => {
                return refused(StatusCode::CONFLICT, "Conflict");
            }
            _ => {}
        }
        inner.version += 1;
        lease["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap().to_owned();
        let write = (Instant::now(), holder, inner.working);
        inner.writes.push(write);
        inner.lease = Some(lease.clone());
        reply(StatusCode::OK, &lease)
    }
}

fn reply(code: StatusCode, body: &Value) -> Response {
    (code, body.to_string()).into_response()
}

async fn answer(State((world, link)): State<(World, Arc<Mutex<Link>>)>, request: Request) -> Response {
    let method = request.method().clone();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX)
        .await
        .unwrap();
    let link = *link.lock().unwrap();
    match link {
        Link::Cut => std::future::pending().await,
        Link::Refused => return reply(StatusCode::FORBIDDEN, &json!({})),
        Link::Up | Link::Late | Link::Mute | Link::Slow => {}
    }
    let lease = serde_json::from_slice(&body).ok();
    if link == Link::Late {
        tokio::spawn(async move {
            sleep(RENEW_DEADLINE).await;
            world.serve(&method, lease);
        });
        return std::future::pending().await;
    }
    let answer = world.serve(&method, lease);
    match link {
        Link::Mute if method != Method::GET => std::future::pending().await,
        Link::Slow => sleep(RENEW_DEADLINE / 2 - STEP).await,
        _ => {}
    }
    answer
}

// === impl Process ===

impl Process {
    fn link(&self, link: Link) {
        *self.link.lock().unwrap() = link;
    }

    /// As SIGSTOP does: the process runs no more, and time goes on.
    fn stop(&self) {
        self.gate.lock().unwrap().stopped = true;
    }

    fn resume(&self) {
        let mut gate = self.gate.lock().unwrap();
        gate.stopped = false;
        if let Some(waker) = gate.waker.take() {
            waker.wake();
        }
    }

    async fn terminate(mut self) {
        drop(self.shutdown.take());
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A process that can be stopped.
struct Gated<F>(Pin<Box<F>>, Arc<Mutex<Gate>>);

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut gate = self.1.lock().unwrap();
        gate.waker = Some(context.waker().clone());
        let stopped = gate.stopped;
        drop(gate);
        match stopped {
            true => Poll::Pending,
            false => self.0.as_mut().poll(context),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_not_fit_does_not_stand_and_lays_the_leadership_down_at_once() {
    let world = World::default();
    let first = world.start(0);
    first.fit.store(false, Ordering::Relaxed);
    sleep(2 * LEASE_DURATION).await;
    assert_eq!(world.0.lock().unwrap().writes.len(), 0, "it does not stand");
    first.fit.store(true, Ordering::Relaxed);
    world.led_by(|n| n == 0).await;
    let _second = world.start(1);
    sleep(10 * RETRY_PERIOD).await;
    first.fit.store(false, Ordering::Relaxed);
    let unfit = Instant::now();
    world.led_by(|n| n == 1).await;
    // The Lease was released: nobody waits for its end.
    assert!(
        unfit.elapsed() <= 2 * RETRY_PERIOD + 2 * STEP,
        "{:?}",
        unfit.elapsed()
    );
    world.assert_no_overlap();
}

#[tokio::test(start_paused = true)]
async fn the_first_to_come_leads_and_renews_without_end() {
    let world = World::default();
    let processes = [0, 1, 2].map(|n| world.start(n));
    world.led_by(|_| true).await;
    sleep(20 * LEASE_DURATION).await;
    assert_eq!(world.0.lock().unwrap().terms.len(), 1);
    drop(processes);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_at_its_deadline_and_its_successor_waits_for_the_leases_end() {
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
            world.0.lock().unwrap().dropped[0] <= renewed + RENEW_DEADLINE + STEP,
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
async fn the_deadline_counts_from_the_request_and_not_from_its_answer() {
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
async fn a_stopped_leader_does_not_take_another_step_when_it_wakes() {
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
async fn a_leader_stopped_for_long_begins_a_new_term_even_where_nobody_took_over() {
    let world = World::default();
    let process = world.start(0);
    world.led_by(|_| true).await;
    process.stop();
    sleep(10 * LEASE_DURATION).await;
    let before = world.steps_of(0);
    process.resume();
    world.led_by(|_| true).await;
    assert_eq!(world.steps_of(0), before);
    assert_eq!(world.0.lock().unwrap().terms.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_ours_without_our_knowing_is_taken_up_at_once() {
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
async fn a_leader_that_ends_in_the_middle_of_a_renewal_releases_all_the_same() {
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
async fn who_does_not_lead_ends_without_touching_the_lease() {
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
async fn an_end_does_not_wait_for_an_api_server_that_does_not_answer() {
    let world = World::default();
    let process = world.start(0);
    world.led_by(|_| true).await;
    process.link(Link::Cut);
    let asked = Instant::now();
    process.terminate().await;
    assert!(asked.elapsed() <= RENEW_DEADLINE / 2);
}

#[tokio::test(start_paused = true)]
async fn work_that_ends_by_itself_gives_the_leadership_up() {
    let world = World::default();
    let _process = world.start_with(0, |term| term == 0);
    world.written().await;
    world.eventually(|world| world.last_write().1.is_empty()).await;
    // And stands again.
    world.led_by(|n| n == 0).await;
    assert_eq!(world.0.lock().unwrap().terms.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_deleted_is_made_again_by_the_leader() {
    let world = World::default();
    let _process = world.start(0);
    world.led_by(|_| true).await;
    world.0.lock().unwrap().lease = None;
    sleep(LEASE_DURATION).await;
    let inner = world.0.lock().unwrap();
    assert!(inner.lease.is_some());
    assert_eq!(inner.terms.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_given_to_another_stops_at_its_next_renewal() {
    let world = World::default();
    let _process = world.start(0);
    world.led_by(|_| true).await;
    {
        let mut inner = world.0.lock().unwrap();
        inner.version += 1;
        let version = inner.version.to_string();
        let lease = inner.lease.as_mut().unwrap();
        lease["metadata"]["resourceVersion"] = json!(version);
        lease["spec"]["holderIdentity"] = json!("somebody");
    }
    sleep(RETRY_PERIOD + STEP).await;
    assert_eq!(world.leader(), None);
    sleep(LEASE_DURATION / 2).await;
    assert_eq!(world.0.lock().unwrap().working, 0);
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
    fn whatever_happens_two_never_lead_and_in_the_end_one_does(
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
