//! Limits calls to each host outside the cluster and to the API server.
//!
//! Users choose the host names, and any host may hang. A call therefore waits only for its own host, and while it waits
//! it holds no permit for another host. Each host has
//! - a limit of concurrent calls, granted fairly (see [`FairSemaphore`]);
//! - a circuit breaker: after several consecutive calls without a response, further calls fail immediately with the
//!   same problem, and one call at a time probes the host after a back-off;
//! - the pauses that the host requested by `Retry-After`, one for each subject that callers name. A registry throttles
//!   as a whole. Entra throttles an application in a tenant, so that is the subject for Entra, as in Microsoft's own
//!   client library; otherwise one throttled application would stop all other applications of its tenant.
//!
//! All hosts together have a limit too, which bounds memory. One host may use a quarter of it.

use super::progress::{Progress, Stage};
use crate::{
    fair_semaphore::{FairPermit, FairSemaphore, Lane},
    problem::Problem,
    telemetry::Metrics,
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// The limit for all hosts together is this multiple of the limit for one host.
const TOTAL_LIMIT_FACTOR: usize = 4;
/// After this many consecutive calls without a response, the host is considered unreachable.
const BREAKER_THRESHOLD: u32 = 5;
const MIN_BACKOFF: Duration = Duration::from_secs(2);
/// Bounds the delay after the network has recovered.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// `retry_after` of calls that fail while a probe is in progress.
const PROBE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The accepted range of a `Retry-After`.
const PAUSE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// Longer than any admission request. A renewal is retried later.
const MAX_QUEUE_WAIT: Duration = Duration::from_secs(30);
/// Maximum number of remembered hosts. A host name has at most 253 bytes.
const MAX_HOSTS: usize = 512;
const MAX_PAUSES: usize = 4096;

/// The API server's name in messages.
const API_SERVER_NAME: &str = "the API server";

/// Limits for all hosts. Clones share them.
#[derive(Clone)]
pub struct Gates(Arc<Inner>);

struct Inner {
    limit: usize,
    kubernetes: FairSemaphore,
    all: FairSemaphore,
    hosts: Mutex<HashMap<String, Arc<Gate>>>,
    pauses: Mutex<HashMap<String, Pause>>,
    metrics: Metrics,
}

struct Gate {
    name: Arc<str>,
    permits: FairSemaphore,
    breaker: Mutex<Breaker>,
}

/// On whose behalf a call is made.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The namespace whose share of the permits is used.
    pub namespace: Arc<str>,
    /// Whether the call serves an admission or a renewal.
    pub lane: Lane,
    /// Records what the call waits for.
    pub progress: Progress,
}

#[derive(Default)]
struct Breaker {
    failures: u32,
    open: Option<Open>,
}

struct Open {
    problem: Problem,
    until: Instant,
    wait: Duration,
    probing: bool,
}

/// Permission by the circuit breaker to make a call.
struct BreakerPermit<'a> {
    gate: &'a Gate,
    is_probe: bool,
}

struct Pause {
    problem: Problem,
    until: Instant,
}

impl Gates {
    /// Allows `limit` concurrent calls to each host and to the API server.
    pub fn new(limit: u16, metrics: Metrics) -> Self {
        let limit = usize::from(limit);
        Self(Arc::new(Inner {
            limit,
            kubernetes: FairSemaphore::new(limit),
            all: FairSemaphore::new(limit * TOTAL_LIMIT_FACTOR),
            hosts: Mutex::default(),
            pauses: Mutex::default(),
            metrics,
        }))
    }

    /// Calls the API server once a permit is available.
    pub async fn kubernetes<F: Future>(&self, caller: &Caller, call: impl FnOnce() -> F) -> F::Output {
        let Caller {
            namespace,
            lane,
            progress,
        } = caller;
        let waiting = self.0.metrics.track_waiting_call();
        let staged = progress.at(self.0.queue(API_SERVER_NAME.into()));
        let _permit = self.0.kubernetes.acquire(namespace, *lane).await;
        drop((waiting, staged));
        // Thousands of calls may wait, and a call's future is large, so it is created only after the permit is granted.
        Box::pin(call()).await
    }

    /// Calls a host once a permit is available. Fails immediately if the host is unreachable or requested a pause for
    /// `subject`.
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
        let _permit = self.0.permits(&gate, caller).await?;
        // The host may have become unreachable or requested a pause while this call waited.
        self.0.check_pause(subject)?;
        let permit = gate.admit()?;
        let staged = caller.progress.at(Stage::Host(gate.name.clone()));
        let result = Box::pin(call()).await;
        drop(staged);
        permit.settle(result.as_ref().err());
        if let Err(problem) = &result
            && let Some(asked) = problem.retry_after
        {
            self.0.pause(subject, problem, asked);
        }
        result
    }

    /// Whether the circuit breaker of this host is open.
    pub fn is_unreachable(&self, host: &str) -> bool {
        let hosts = self.0.hosts.lock();
        hosts
            .get(host)
            .is_some_and(|gate| gate.breaker.lock().open.is_some())
    }
}

impl Inner {
    fn gate(&self, host: &str) -> Arc<Gate> {
        let mut hosts = self.hosts.lock();
        if let Some(gate) = hosts.get(host) {
            return gate.clone();
        }
        if hosts.len() >= MAX_HOSTS {
            // Hosts with current or waiting calls are kept. Of the others, unreachable hosts are removed last.
            hosts.retain(|_, gate| Arc::strong_count(gate) > 1 || gate.breaker.lock().is_open());
        }
        if hosts.len() >= MAX_HOSTS {
            hosts.retain(|_, gate| Arc::strong_count(gate) > 1);
        }
        let gate = Arc::new(Gate {
            name: host.into(),
            permits: FairSemaphore::new(self.limit),
            breaker: Mutex::default(),
        });
        hosts.insert(host.to_owned(), gate.clone());
        gate
    }

    /// Fails if the call would be refused now, so that it need not wait for a permit.
    fn check(&self, gate: &Gate, subject: &str) -> Result<(), Problem> {
        self.check_pause(subject)?;
        gate.breaker.lock().refusal().map_or(Ok(()), Err)
    }

    /// Acquires the host's permit first, so that a call that waits for it holds nothing that calls to other hosts need.
    async fn permits(&self, gate: &Gate, caller: &Caller) -> Result<(FairPermit, FairPermit), Problem> {
        let Caller {
            namespace,
            lane,
            progress,
        } = caller;
        let _waiting = self.metrics.track_waiting_call();
        let _staged = progress.at(self.queue(gate.name.clone()));
        let both = async {
            let host = gate.permits.acquire(namespace, *lane).await;
            (host, self.all.acquire(namespace, *lane).await)
        };
        timeout(MAX_QUEUE_WAIT, both)
            .await
            .map_err(|_| progress.deadline_exceeded())
    }

    /// The stage of a call that waits for a permit.
    fn queue(&self, host: Arc<str>) -> Stage {
        Stage::Queue {
            host,
            limit: self.limit,
        }
    }

    fn check_pause(&self, subject: &str) -> Result<(), Problem> {
        let mut pauses = self.pauses.lock();
        let Some(pause) = pauses.get(subject) else {
            return Ok(());
        };
        let left = pause.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            pauses.remove(subject);
            return Ok(());
        }
        Err(retry_later(&pause.problem, left))
    }

    fn pause(&self, subject: &str, problem: &Problem, asked: Duration) {
        let mut pauses = self.pauses.lock();
        let now = Instant::now();
        if pauses.len() >= MAX_PAUSES {
            pauses.retain(|_, pause| pause.until > now);
        }
        if pauses.len() >= MAX_PAUSES {
            return;
        }
        let pause = Pause {
            problem: problem.clone(),
            until: now + asked.clamp(*PAUSE_RANGE.start(), *PAUSE_RANGE.end()),
        };
        pauses.insert(subject.to_owned(), pause);
    }
}

/// The same problem, for a call that was not made.
fn retry_later(problem: &Problem, left: Duration) -> Problem {
    let seconds = left.as_secs_f64().ceil();
    let fact = format!("{}; it is tried again in {seconds} s", problem.fact);
    Problem {
        fact,
        retry_after: Some(left),
        unreachable: false,
        ..problem.clone()
    }
}

impl Gate {
    fn admit(&self) -> Result<BreakerPermit<'_>, Problem> {
        let mut breaker = self.breaker.lock();
        if let Some(problem) = breaker.refusal() {
            return Err(problem);
        }
        let probe = breaker.open.as_mut().map(|open| open.probing = true);
        Ok(BreakerPermit {
            gate: self,
            is_probe: probe.is_some(),
        })
    }
}

impl Breaker {
    fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Why calls are refused now, if they are.
    fn refusal(&self) -> Option<Problem> {
        let open = self.open.as_ref()?;
        let left = open.until.saturating_duration_since(Instant::now());
        if open.probing {
            Some(retry_later(&open.problem, left.max(PROBE_RETRY_AFTER)))
        } else {
            (!left.is_zero()).then(|| retry_later(&open.problem, left))
        }
    }

    fn record_failure(&mut self, problem: &Problem, is_probe: bool) {
        self.failures = self.failures.saturating_add(1);
        let wait = match &self.open {
            Some(open) if is_probe => (open.wait * 2).min(MAX_BACKOFF),
            None if self.failures >= BREAKER_THRESHOLD => MIN_BACKOFF,
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

impl BreakerPermit<'_> {
    fn settle(self, problem: Option<&Problem>) {
        let mut breaker = self.gate.breaker.lock();
        match problem {
            Some(problem) if problem.unreachable => breaker.record_failure(problem, self.is_probe),
            // Any response shows that the host is reachable.
            _ => *breaker = Breaker::default(),
        }
    }
}

impl Drop for BreakerPermit<'_> {
    /// A cancelled probe allows the next one.
    fn drop(&mut self) {
        if self.is_probe
            && let Some(open) = &mut self.gate.breaker.lock().open
        {
            open.probing = false;
        }
    }
}

#[cfg(test)]
mod tests;
