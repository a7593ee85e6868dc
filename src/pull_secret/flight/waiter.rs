//! A caller's view of a flight.

use super::interrupted;
use crate::{problem::Problem, transport::Progress};
use std::sync::Arc;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// Where a flight stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// An attempt is under way. With the problem of the attempt before it, if there was one.
    Attempting(Option<Problem>),
    /// No further attempt follows.
    Finished(Result<(), Problem>),
    /// The last attempt failed, and the next one starts by itself in a moment.
    RetryingSoon(Problem),
    /// The last attempt failed, and the next one does not start before this moment.
    BackingOff(Problem, Instant),
}

impl State {
    /// Whether an attempt is under way.
    pub(super) fn is_attempting(&self) -> bool {
        matches!(self, Self::Attempting(_))
    }

    /// Whether a caller waits for a later state.
    fn is_pending(&self) -> bool {
        matches!(self, Self::Attempting(_) | Self::RetryingSoon(_))
    }
}

/// A caller's view of a flight.
pub struct Waiter {
    pub(super) state: watch::Receiver<State>,
    pub(super) progress: Progress,
    pub(super) retry_now: Arc<Notify>,
}

impl Waiter {
    pub(super) fn refused(problem: Problem) -> Self {
        let (_, state) = watch::channel(State::Finished(Err(problem)));
        Self {
            state,
            progress: Progress::default(),
            retry_now: Arc::default(),
        }
    }

    /// What the flight waits for.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// The problem of the last attempt that failed.
    pub fn last_problem(&self) -> Option<Problem> {
        match &*self.state.borrow() {
            State::Attempting(problem) => problem.clone(),
            State::RetryingSoon(problem) | State::BackingOff(problem, _) => Some(problem.clone()),
            State::Finished(outcome) => outcome.clone().err(),
        }
    }

    /// The outcome of the flight, or of its last attempt while it backs off.
    pub async fn outcome(&mut self) -> Result<(), Problem> {
        let is_due = match &*self.state.borrow_and_update() {
            State::BackingOff(_, earliest) => *earliest <= Instant::now(),
            _ => false,
        };
        if is_due {
            self.retry_now.notify_one();
            if self.state.changed().await.is_err() {
                return Err(interrupted());
            }
        }
        let settled = self.state.wait_for(|state| !state.is_pending()).await;
        match settled.as_deref() {
            Ok(State::Finished(outcome)) => outcome.clone(),
            Ok(State::BackingOff(problem, _)) => Err(problem.clone()),
            Ok(State::Attempting(_) | State::RetryingSoon(_)) | Err(_) => Err(interrupted()),
        }
    }
}
