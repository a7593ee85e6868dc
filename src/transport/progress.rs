//! What an attempt to issue a token waits for, so that a missed deadline names the right cause.

use crate::problem::{Problem, Reason};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// What an attempt to issue a token waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// A response of the API server.
    #[default]
    Kubernetes,
    /// The end of an earlier attempt with other inputs.
    Predecessor,
    /// A permit to call a host.
    Queue {
        /// The host.
        host: Arc<str>,
        /// How many calls to the host may be in progress.
        limit: usize,
    },
    /// A response of this host.
    Host(Arc<str>),
}

/// What an attempt to issue a token currently waits for, and since when. Clones share it.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Mutex<(Stage, Instant)>>);

impl Progress {
    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.0.lock().0.clone()
    }

    /// Sets the current stage.
    pub fn set(&self, stage: Stage) {
        *self.0.lock() = (stage, Instant::now());
    }

    /// Sets the stage until the guard is dropped.
    pub fn at(&self, stage: Stage) -> StageGuard<'_> {
        self.set(stage);
        StageGuard(self)
    }

    /// The problem of an attempt whose deadline passes now.
    pub fn deadline_exceeded(&self) -> Problem {
        let (stage, since) = self.0.lock().clone();
        deadline_exceeded(&stage, since.elapsed())
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(Mutex::new((Stage::default(), Instant::now()))))
    }
}

/// Resets the stage when dropped.
pub struct StageGuard<'a>(&'a Progress);

impl Drop for StageGuard<'_> {
    fn drop(&mut self) {
        self.0.set(Stage::Kubernetes);
    }
}

/// The problem of a call whose deadline passed while it waited for `stage`, for this long.
pub fn deadline_exceeded(stage: &Stage, waited: Duration) -> Problem {
    let seconds = waited.as_secs_f64().round();
    match stage {
        Stage::Kubernetes => Problem::new(
            Reason::ApiServerUnavailable,
            "the API server did not answer the webhook's own calls before the webhook's time-out",
        ),
        Stage::Predecessor => Problem::new(
            Reason::UpstreamTimeout,
            "an earlier attempt, from before the generator or service account changed, did not end before the time-out",
        ),
        Stage::Queue { host, limit } => Problem::new(
            Reason::QueueTimeout,
            format!(
                "the call to {host} waited {seconds} s for one of the webhook's {limit} concurrent calls: raise \
                 --issue-concurrency"
            ),
        ),
        Stage::Host(host) => Problem::new(
            Reason::UpstreamTimeout,
            format!("{host} did not respond within {seconds} s, before the API server's time-out"),
        ),
    }
}
