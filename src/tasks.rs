//! Essential tasks: the process exits when the first one ends. A restarted process is better than one that answers from
//! the stale data of a dead watch.

use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use tokio::sync::mpsc;

/// Starts essential tasks. Clones report to the same [`Ended`].
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::UnboundedSender<String>);

/// Reports the first essential task that ended.
#[derive(Debug)]
pub struct Ended(mpsc::UnboundedReceiver<String>);

/// Creates a connected pair.
pub fn tasks() -> (Tasks, Ended) {
    let (ended, first) = mpsc::unbounded_channel();
    (Tasks(ended), Ended(first))
}

impl Tasks {
    /// Starts a task that must run as long as the process.
    pub fn spawn(&self, name: &str, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.0.clone();
        let name = name.to_owned();
        tokio::spawn(async move {
            let outcome = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) => "ended",
                // The panic payload is left out, as it may contain untrusted input; the panic hook has printed it.
                Err(_) => "panicked",
            };
            // The receiver is gone when the process is shutting down.
            let _ = ended.send(format!("the {name} {outcome}"));
        });
    }
}

impl Ended {
    /// Waits for the first task that ends and returns a description.
    pub async fn first(&mut self) -> String {
        match self.0.recv().await {
            Some(description) => description,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_or_panics_is_reported_by_name() {
        let (tasks, mut ended) = tasks();
        tasks.spawn("watch that lasts", std::future::pending());
        tasks.spawn("watch that ends", async {});
        assert_eq!(ended.first().await, "the watch that ends ended");
        tasks.spawn("watch that panics", async { panic!("by a fault") });
        assert_eq!(ended.first().await, "the watch that panics panicked");
    }
}
