//! Tasks that the process cannot do without: the first that ends, ends the process. A new process is better than one whose
//! watch has died and whose answers come from what was once known.

use futures::FutureExt;
use std::panic::AssertUnwindSafe;
use tokio::sync::mpsc;

/// Starts such tasks; clones belong together.
#[derive(Clone, Debug)]
pub struct Tasks(mpsc::UnboundedSender<String>);

/// The other end: reports the first task that ended.
#[derive(Debug)]
pub struct Ended(mpsc::UnboundedReceiver<String>);

/// Both ends.
pub fn tasks() -> (Tasks, Ended) {
    let (ended, first) = mpsc::unbounded_channel();
    (Tasks(ended), Ended(first))
}

// === impl Tasks ===

impl Tasks {
    /// Starts a task that lasts as long as the process.
    pub fn spawn(&self, what: &str, task: impl Future<Output = ()> + Send + 'static) {
        let (ended, what) = (self.0.clone(), what.to_owned());
        tokio::spawn(async move {
            let why = match AssertUnwindSafe(task).catch_unwind().await {
                Ok(()) => "ended",
                // What it panicked with may hold what strangers wrote: the standard panic message has it.
                Err(_) => "panicked",
            };
            // Nobody listens any more when the process is on its way out.
            let _ = ended.send(format!("the {what} {why}"));
        });
    }
}

// === impl Ended ===

impl Ended {
    /// The first task that ended, as a sentence.
    pub async fn first(&mut self) -> String {
        match self.0.recv().await {
            Some(what) => what,
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
