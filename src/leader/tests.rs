//! Elections in paused time against a minimal API server, for situations that a real API server (see
//! tests/integration/leader.rs) cannot produce on demand.

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
/// Hardly shorter than the lease duration, and a response may take half of it, so a timing error causes an overlap.
const RENEW_DEADLINE: Duration = Duration::from_millis(2_900);
const RETRY_PERIOD: Duration = Duration::from_millis(250);
const STEP: Duration = Duration::from_millis(10);

/// The state shared by the processes: the Lease and a record of events.
#[derive(Clone, Default)]
struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    lease: Option<Value>,
    version: u64,
    /// Every write: its time, its holder, and how many processes were working at that time.
    writes: Vec<(Instant, String, usize)>,
    working: usize,
    /// The times when work was dropped.
    dropped: Vec<Instant>,
    /// Every leadership with the index of its process.
    terms: Vec<(usize, Leadership)>,
    /// Every step of work: its time and the index of its leadership.
    steps: Vec<(Instant, usize)>,
}

/// The connection between one process and the API server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Link {
    Up,
    /// Requests do not arrive.
    Cut,
    /// Requests arrive after the process has stopped waiting for the response.
    Late,
    /// Writes are executed but not answered.
    Mute,
    /// Responses take nearly as long as the call timeout.
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

impl World {
    fn start(&self, index: usize) -> Process {
        self.start_with(index, |_| false)
    }

    /// A process whose work ends by itself if `ends` returns true for the index of its leadership.
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
        let work = move |term: Leadership| world.clone().work(index, term, ends);
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

    /// Records a step at regular intervals.
    async fn work(self, index: usize, term: Leadership, ends: fn(usize) -> bool) {
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

    /// Fails if two processes worked, or were allowed to work, at the same time.
    fn assert_no_overlap(&self) {
        let inner = self.0.lock().unwrap();
        assert!(inner.terms.iter().filter(|(_, term)| term.still_leads()).count() <= 1);
        assert!(
            inner.steps.is_sorted_by_key(|(_, term)| term),
            "a step after the first step of the next leadership: {:?}",
            inner.steps
        );
    }

    /// Waits until a process that satisfies `condition` leads.
    async fn led_by(&self, condition: impl Fn(usize) -> bool) {
        self.eventually(|world| world.leader().is_some_and(&condition))
            .await;
    }

    async fn eventually(&self, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(
                start.elapsed() < 10 * LEASE_DURATION,
                "the condition was never met"
            );
            sleep(STEP).await;
        }
    }

    /// Waits for the next write.
    async fn written(&self) {
        let before = self.0.lock().unwrap().writes.len();
        self.eventually(|world| world.0.lock().unwrap().writes.len() > before)
            .await;
    }

    /// The process whose leadership is valid.
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

    /// The last write of any process.
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

impl Process {
    fn link(&self, link: Link) {
        *self.link.lock().unwrap() = link;
    }

    /// Suspends the process as SIGSTOP does, while time goes on.
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
        if stopped {
            Poll::Pending
        } else {
            self.0.as_mut().poll(context)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unfit_replica_does_not_run_for_leader_and_releases_the_leadership() {
    let world = World::default();
    let first = world.start(0);
    first.fit.store(false, Ordering::Relaxed);
    sleep(2 * LEASE_DURATION).await;
    assert_eq!(
        world.0.lock().unwrap().writes.len(),
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
    assert_eq!(world.0.lock().unwrap().terms.len(), 1);
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
    assert_eq!(world.0.lock().unwrap().terms.len(), 2);
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
    let _process = world.start_with(0, |term| term == 0);
    world.written().await;
    world.eventually(|world| world.last_write().1.is_empty()).await;
    // The replica then runs for leader again.
    world.led_by(|n| n == 0).await;
    assert_eq!(world.0.lock().unwrap().terms.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_lease_is_created_again_by_the_leader() {
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
async fn a_leader_whose_lease_names_another_holder_stops_at_its_next_renewal() {
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
