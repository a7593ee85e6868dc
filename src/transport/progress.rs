//! What an attempt to issue a token waits for, so that a missed deadline names the right cause.

use crate::problem::{Problem, Reason};
use parking_lot::Mutex;
use std::sync::Arc;

/// What an attempt to issue a token waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// A response of the API server.
    #[default]
    Kubernetes,
    /// The end of an earlier attempt with other inputs.
    Predecessor,
    /// A permit to call this host.
    Queue(Arc<str>),
    /// A response of this host.
    Host(Arc<str>),
}

/// What an attempt to issue a token currently waits for. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Stage>>);

impl Progress {
    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.0.lock().clone()
    }

    /// Sets the current stage.
    pub fn set(&self, stage: Stage) {
        *self.0.lock() = stage;
    }

    /// Sets the stage until the guard is dropped.
    pub fn at(&self, stage: Stage) -> StageGuard<'_> {
        self.set(stage);
        StageGuard(self)
    }
}

/// Resets the stage when dropped.
pub struct StageGuard<'a>(&'a Progress);

impl Drop for StageGuard<'_> {
    fn drop(&mut self) {
        self.0.set(Stage::Kubernetes);
    }
}

/// The problem of a call whose deadline passed while it waited for `stage`.
pub fn deadline_exceeded(stage: &Stage) -> Problem {
    match stage {
        Stage::Kubernetes => Problem::new(
            Reason::ApiServerUnavailable,
            "the API server did not answer the webhook's own calls before the webhook's timeout",
        ),
        Stage::Predecessor => Problem::new(
            Reason::UpstreamTimeout,
            "an earlier attempt, from before the generator or service account changed, did not end before the API server's \
             timeout",
        ),
        Stage::Queue(host) => Problem::new(
            Reason::UpstreamTimeout,
            format!(
                "the call to {host} was still queued at the timeout: too many calls to this host are in progress"
            ),
        ),
        Stage::Host(host) => Problem::new(
            Reason::UpstreamTimeout,
            format!("{host} did not respond before the API server's timeout"),
        ),
    }
}
