//! Replicas with suspended processes, lost requests and one API server that keeps one Lease.

use super::super::*;
use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};
use tokio::{sync::oneshot, task::JoinHandle};

pub const LEASE_DURATION: Duration = Duration::from_secs(3);
/// Hardly shorter than the lease duration, and a response may take half of it, so a timing error causes an overlap.
pub const RENEW_DEADLINE: Duration = Duration::from_millis(2_900);
pub const RETRY_PERIOD: Duration = Duration::from_millis(250);
pub const STEP: Duration = Duration::from_millis(10);

/// The state shared by the processes: the Lease and a record of events.
#[derive(Clone, Default)]
pub struct World(pub Arc<Mutex<Inner>>);

#[derive(Default)]
pub struct Inner {
    pub lease: Option<Value>,
    pub version: u64,
    /// Every write: its time, its holder, and how many processes were working at that time.
    pub writes: Vec<(Instant, String, usize)>,
    pub working: usize,
    /// The times when work was dropped.
    pub dropped: Vec<Instant>,
    /// Every leadership with the index of its process.
    pub leaderships: Vec<(usize, Leadership)>,
    /// Every step of work: its time and the index of its leadership.
    pub steps: Vec<(Instant, usize)>,
}

/// The connection between one process and the API server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
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
pub struct Process {
    pub link: Arc<Mutex<Link>>,
    pub gate: Arc<Mutex<Gate>>,
    pub fit: Arc<AtomicBool>,
    pub shutdown: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

#[derive(Default)]
pub struct Gate {
    pub stopped: bool,
    pub waker: Option<Waker>,
}

impl World {
    pub fn start(&self, index: usize) -> Process {
        self.start_with(index, |_| false)
    }

    /// A process whose work ends by itself if `ends` returns true for the index of its leadership.
    pub fn start_with(&self, index: usize, ends: fn(usize) -> bool) -> Process {
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
        let work = move |leadership: Leadership| world.clone().work(index, leadership, ends);
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
    pub async fn work(self, index: usize, leadership: Leadership, ends: fn(usize) -> bool) {
        struct Working(World);
        impl Drop for Working {
            fn drop(&mut self) {
                let mut inner = self.0.0.lock();
                inner.working -= 1;
                inner.dropped.push(Instant::now());
            }
        }
        let number = {
            let mut inner = self.0.lock();
            inner.working += 1;
            inner.leaderships.push((index, leadership));
            inner.leaderships.len() - 1
        };
        let _working = Working(self.clone());
        while !ends(number) {
            let now = Instant::now();
            self.0.lock().steps.push((now, number));
            sleep(STEP).await;
        }
    }

    /// Fails if two processes worked, or were allowed to work, at the same time.
    pub fn assert_no_overlap(&self) {
        let inner = self.0.lock();
        assert!(
            inner
                .leaderships
                .iter()
                .filter(|(_, leadership)| leadership.still_leads())
                .count()
                <= 1
        );
        assert!(
            inner.steps.is_sorted_by_key(|(_, number)| number),
            "a step after the first step of the next leadership: {:?}",
            inner.steps
        );
    }

    /// Waits until a process that satisfies `condition` leads.
    pub async fn led_by(&self, condition: impl Fn(usize) -> bool) {
        self.eventually(|world| world.leader().is_some_and(&condition))
            .await;
    }

    pub async fn eventually(&self, condition: impl Fn(&Self) -> bool) {
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
    pub async fn written(&self) {
        let before = self.0.lock().writes.len();
        self.eventually(|world| world.0.lock().writes.len() > before)
            .await;
    }

    /// The process whose leadership is valid.
    pub fn leader(&self) -> Option<usize> {
        let inner = self.0.lock();
        let leader = inner
            .leaderships
            .iter()
            .find(|(_, leadership)| leadership.still_leads());
        leader.map(|(process, _)| *process)
    }

    pub fn steps_of(&self, number: usize) -> Vec<Instant> {
        let inner = self.0.lock();
        let steps = inner.steps.iter().filter(|(_, of)| *of == number);
        steps.map(|(when, _)| *when).collect()
    }

    /// The last write of any process.
    pub fn last_write(&self) -> (Instant, String, usize) {
        self.0.lock().writes.last().unwrap().clone()
    }

    pub fn serve(&self, method: &Method, lease: Option<Value>) -> Response {
        let mut inner = self.0.lock();
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

pub fn reply(code: StatusCode, body: &Value) -> Response {
    (code, body.to_string()).into_response()
}

pub async fn answer(State((world, link)): State<(World, Arc<Mutex<Link>>)>, request: Request) -> Response {
    let method = request.method().clone();
    let body = axum::body::to_bytes(request.into_body(), usize::MAX)
        .await
        .unwrap();
    let link = *link.lock();
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
    pub fn link(&self, link: Link) {
        *self.link.lock() = link;
    }

    /// Suspends the process as SIGSTOP does, while time goes on.
    pub fn stop(&self) {
        self.gate.lock().stopped = true;
    }

    pub fn resume(&self) {
        let mut gate = self.gate.lock();
        gate.stopped = false;
        if let Some(waker) = gate.waker.take() {
            waker.wake();
        }
    }

    pub async fn terminate(mut self) {
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
pub struct Gated<F>(Pin<Box<F>>, Arc<Mutex<Gate>>);

impl<F: Future> Future for Gated<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut gate = self.1.lock();
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
