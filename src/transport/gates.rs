//! A gate in front of each host outside the cluster, and one in front of our own API server.
//!
//! Host names come from users, and any host may hang. So a call waits for the host that it needs and for nothing else:
//! while it waits for one host it holds no permit of another one. Each host has
//! - a number of calls at the same time, handed out in fair turns (see [`Turns`]);
//! - a breaker: after some calls in a row without an answer the next ones fail at once with the same problem, and one at a
//!   time tries again after a back-off;
//! - the pauses that it asked for by `Retry-After`, each for the subject that the caller names. A registry throttles as a
//!   whole. Entra throttles an application in a tenant, so that is the subject there, as it is in Microsoft's own client
//!   library; otherwise one application that its owner drives into throttling would stop all others of the same tenant.
//!
//! All hosts together have a limit too, which bounds memory; one host may use a quarter of it.

use crate::{
    problem::{Problem, Reason},
    telemetry::Metrics,
    turns::{Lane, Turn, Turns},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// How many times the limit of one host all hosts together may be asked at the same time.
const HOSTS_AT_THEIR_LIMIT: usize = 4;
/// So many calls in a row without an answer are the host's trouble, not the trouble of one call.
const UNANSWERED: u32 = 5;
const MIN_BREAK: Duration = Duration::from_secs(2);
/// A person who has mended the network waits no longer than this.
const MAX_BREAK: Duration = Duration::from_secs(30);
/// While a probe is under way.
const PROBED: Duration = Duration::from_secs(1);
/// Bounds what a `Retry-After` can cause.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// Longer than any admission lasts. A renewal tries again later.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Idle hosts that are remembered. A host name is 253 bytes at most.
const MOST_HOSTS: usize = 512;
const MOST_PAUSES: usize = 4096;

/// As who waits is told of it.
const API_SERVER: &str = "the API server";

/// The gates; clones share them.
#[derive(Clone)]
pub struct Gates(Arc<Inner>);

struct Inner {
    limit: usize,
    kubernetes: Turns,
    all: Turns,
    hosts: Mutex<HashMap<String, Arc<Gate>>>,
    pauses: Mutex<HashMap<String, Pause>>,
    metrics: Metrics,
}

struct Gate {
    name: Arc<str>,
    turns: Turns,
    breaker: Mutex<Breaker>,
}

/// For whom a call is made.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The namespace whose turn it is.
    pub namespace: Arc<str>,
    /// Whether a Pod waits.
    pub lane: Lane,
    /// Where the call is, for whoever waits for it.
    pub place: Place,
}

/// Where something is on its way to a token; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Place(Arc<Mutex<Stage>>);

/// A stage on the way to a token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Our own API server is asked.
    #[default]
    Kubernetes,
    /// An earlier try, for other inputs, has not ended.
    Predecessor,
    /// The calls to this host are as many as may be.
    Queue(Arc<str>),
    /// This host is asked.
    Host(Arc<str>),
}

/// Takes a stage back when it is over.
struct Staged<'a>(&'a Place);

#[derive(Default)]
struct Breaker {
    unanswered: u32,
    open: Option<Open>,
}

struct Open {
    problem: Problem,
    until: Instant,
    wait: Duration,
    probing: bool,
}

/// A call that the breaker has let through.
struct Pass<'a> {
    gate: &'a Gate,
    is_probe: bool,
}

struct Pause {
    problem: Problem,
    until: Instant,
}

// === impl Gates ===

impl Gates {
    /// Gates that let so many calls through at the same time, each.
    pub fn new(limit: u16, metrics: Metrics) -> Self {
        let limit = usize::from(limit);
        Self(Arc::new(Inner {
            limit,
            kubernetes: Turns::new(limit),
            all: Turns::new(limit * HOSTS_AT_THEIR_LIMIT),
            hosts: Mutex::default(),
            pauses: Mutex::default(),
            metrics,
        }))
    }

    /// Makes a call to our own API server in its turn.
    pub async fn kubernetes<F: Future>(&self, caller: &Caller, call: impl FnOnce() -> F) -> F::Output {
        let Caller {
            namespace,
            lane,
            place,
        } = caller;
        let waiting = (
            self.0.metrics.track_waiting_call(),
            place.at(Stage::Queue(API_SERVER.into())),
        );
        let _turn = self.0.kubernetes.take(namespace, *lane).await;
        drop(waiting);
        // A call is large, and of those that wait there may be thousands: it is made when it is its turn.
        Box::pin(call()).await
    }

    /// Makes a call to a host in its turn, unless the host is known not to answer or has asked for a pause for this subject.
    pub async fn call<T, F>(
        &self,
        caller: &Caller,
        host: &str,
        subject: &str,
        call: impl FnOnce() -> F,
    ) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let gate = self.0.gate(host);
        self.0.check(&gate, subject)?;
        let _turns = self.0.turns(&gate, caller).await?;
        // What happened while this one waited counts.
        self.0.check_pause(subject)?;
        let pass = gate.pass()?;
        let staged = caller.place.at(Stage::Host(gate.name.clone()));
        let result = Box::pin(call()).await;
        drop(staged);
        pass.settle(result.as_ref().err());
        if let Err(problem) = &result
            && let Some(asked) = problem.retry_after
        {
            self.0.pause(subject, problem, asked);
        }
        result
    }

    /// Whether a host is known not to answer just now.
    pub fn is_closed(&self, host: &str) -> bool {
        let hosts = self.0.hosts();
        hosts.get(host).is_some_and(|gate| gate.breaker().open.is_some())
    }
}

// === impl Inner ===

impl Inner {
    fn gate(&self, host: &str) -> Arc<Gate> {
        let mut hosts = self.hosts();
        if let Some(gate) = hosts.get(host) {
            return gate.clone();
        }
        if hosts.len() >= MOST_HOSTS {
            // Whoever is asked or awaited has its gate in hand; of the others, those in trouble go last.
            hosts.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.breaker().is_open());
        }
        if hosts.len() >= MOST_HOSTS {
            hosts.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        let gate = Arc::new(Gate {
            name: host.into(),
            turns: Turns::new(self.limit),
            breaker: Mutex::default(),
        });
        hosts.insert(host.to_owned(), gate.clone());
        gate
    }

    /// Whether it is of any use to wait for a turn.
    fn check(&self, gate: &Gate, subject: &str) -> Result<(), Problem> {
        self.check_pause(subject)?;
        gate.breaker().refusal().map_or(Ok(()), Err)
    }

    /// The host's own turn first: who waits for it holds nothing that a call to another host needs.
    async fn turns(&self, gate: &Gate, caller: &Caller) -> Result<(Turn, Turn), Problem> {
        let Caller {
            namespace,
            lane,
            place,
        } = caller;
        let _waiting = self.metrics.track_waiting_call();
        let _staged = place.at(Stage::Queue(gate.name.clone()));
        let both = async {
            let host = gate.turns.take(namespace, *lane).await;
            (host, self.all.take(namespace, *lane).await)
        };
        timeout(LONGEST_WAIT, both)
            .await
            .map_err(|_| late(&Stage::Queue(gate.name.clone())))
    }

    fn check_pause(&self, subject: &str) -> Result<(), Problem> {
        let mut pauses = self.pauses();
        let Some(pause) = pauses.get(subject) else {
            return Ok(());
        };
        let left = pause.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            pauses.remove(subject);
            return Ok(());
        }
        Err(again(&pause.problem, left))
    }

    fn pause(&self, subject: &str, problem: &Problem, asked: Duration) {
        let mut pauses = self.pauses();
        let now = Instant::now();
        if pauses.len() >= MOST_PAUSES {
            pauses.retain(|_, pause| pause.until > now);
        }
        if pauses.len() >= MOST_PAUSES {
            return;
        }
        let pause = Pause {
            problem: problem.clone(),
            until: now + asked.clamp(*PAUSE.start(), *PAUSE.end()),
        };
        pauses.insert(subject.to_owned(), pause);
    }

    /// Neither is ever held across an await; a panic elsewhere leaves the maps whole.
    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Arc<Gate>>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<String, Pause>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same problem, for a call that was not made.
fn again(problem: &Problem, left: Duration) -> Problem {
    let seconds = left.as_secs_f64().ceil();
    let message = format!("{}; it is asked again in {seconds} s", problem.message);
    Problem::new(problem.reason, message).retry_after(Some(left))
}

/// The problem of whoever could not wait any longer for something at this stage.
pub fn late(stage: &Stage) -> Problem {
    match stage {
        Stage::Kubernetes => Problem::new(
            Reason::ApiServerUnavailable,
            "the API server did not answer the webhook's own calls before its time-out for the webhook",
        ),
        Stage::Predecessor => Problem::new(
            Reason::UpstreamTimeout,
            "an earlier try, from before the generator or service account changed, did not end before the API server's \
             time-out",
        ),
        Stage::Queue(host) => Problem::new(
            Reason::UpstreamTimeout,
            format!(
                "the call to {host} still waited for its turn at the time-out: too many calls to it are under way"
            ),
        ),
        Stage::Host(host) => Problem::new(
            Reason::UpstreamTimeout,
            format!("{host} did not answer before the API server's time-out"),
        ),
    }
}

// === impl Gate ===

impl Gate {
    fn pass(&self) -> Result<Pass<'_>, Problem> {
        let mut breaker = self.breaker();
        if let Some(problem) = breaker.refusal() {
            return Err(problem);
        }
        let probe = breaker.open.as_mut().map(|open| open.probing = true);
        Ok(Pass {
            gate: self,
            is_probe: probe.is_some(),
        })
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Breaker ===

impl Breaker {
    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Why no call is made now.
    fn refusal(&self) -> Option<Problem> {
        let open = self.open.as_ref()?;
        let left = open.until.saturating_duration_since(Instant::now());
        match open.probing {
            true => Some(again(&open.problem, left.max(PROBED))),
            false => (!left.is_zero()).then(|| again(&open.problem, left)),
        }
    }

    fn unanswered(&mut self, problem: &Problem, is_probe: bool) {
        self.unanswered = self.unanswered.saturating_add(1);
        let wait = match &self.open {
            Some(open) if is_probe => (open.wait * 2).min(MAX_BREAK),
            None if self.unanswered >= UNANSWERED => MIN_BREAK,
            _ => return,
        };
        self.open = Some(Open {
            problem: problem.clone(),
            until: Instant::now() + wait,
            wait,
            probing: false,
        });
    }
}

// === impl Pass ===

impl Pass<'_> {
    fn settle(self, problem: Option<&Problem>) {
        let mut breaker = self.gate.breaker();
        match problem {
            Some(problem) if problem.unreachable => breaker.unanswered(problem, self.is_probe),
            // An answer of whatever kind: the host is there.
            _ => *breaker = Breaker::default(),
        }
    }
}

impl Drop for Pass<'_> {
    /// A probe that nobody waits for any more leaves room for the next one.
    fn drop(&mut self) {
        if self.is_probe
            && let Some(open) = &mut self.gate.breaker().open
        {
            open.probing = false;
        }
    }
}

// === impl Place ===

impl Place {
    /// Where it is now.
    pub fn stage(&self) -> Stage {
        self.lock().clone()
    }

    /// It is somewhere else from now on.
    pub fn set(&self, stage: Stage) {
        *self.lock() = stage;
    }

    fn at(&self, stage: Stage) -> Staged<'_> {
        self.set(stage);
        Staged(self)
    }

    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.0.set(Stage::Kubernetes);
    }
}

#[cfg(test)]
mod tests;
