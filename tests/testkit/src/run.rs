//! Runs a test with a deadline. A test that does not end fails under its own name, and its message lists what the test
//! was waiting for.

use crate::{concurrency, speed};
use std::{
    fmt::Display,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};
use tokio::runtime::Builder;

/// Longer than any test takes on an idle machine with two cores.
const NOMINAL_DEADLINE: Duration = Duration::from_secs(300);
/// A test that blocks its thread is not stopped by its deadline: after this much longer, the process ends.
const NOMINAL_GRACE: Duration = Duration::from_secs(60);
/// How often the deadline is compared with the clock.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// How long the tasks of a test that has ended may take to end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// How far a test is.
struct Progress {
    began: Instant,
    nominal: Mutex<Duration>,
    waits: Mutex<Vec<String>>,
    observed: Mutex<Option<String>>,
}

impl Progress {
    fn new(nominal: Duration) -> Self {
        Self {
            began: Instant::now(),
            nominal: Mutex::new(nominal),
            waits: Mutex::default(),
            observed: Mutex::default(),
        }
    }

    fn is_over(&self, grace: Duration) -> bool {
        let nominal = *self.nominal.lock().unwrap() + grace;
        !speed::is_unknown() && self.began.elapsed() > speed::scaled(nominal)
    }

    fn report(&self, name: &str) -> String {
        let waits = self.waits.lock().unwrap();
        let waits = if waits.is_empty() {
            "nothing that has a name".to_owned()
        } else {
            waits.join("; ")
        };
        format!(
            "{name} has not ended after {:?}. It waits for: {waits}",
            self.began.elapsed()
        )
    }
}

/// Runs a test in a runtime of its own. After the deadline the test fails.
pub fn run(name: &'static str, test: impl Future<Output = ()>) {
    run_for(NOMINAL_DEADLINE, name, test);
}

fn run_for(nominal: Duration, name: &'static str, test: impl Future<Output = ()>) {
    let _running = concurrency::start();
    let progress = Arc::new(Progress::new(nominal));
    let _watchdog = watch(name, progress.clone());
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let with_deadline = async {
        tokio::select! {
            // The test first: it may extend the deadline, and a test that has ended is not late.
            biased;
            () = PROGRESS.scope(progress.clone(), test) => {}
            report = deadline(&progress, name) => panic!("{report}"),
        }
    };
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(with_deadline)));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
}

/// Waits until the deadline. The report is made here, as the macro drops the test, and with it its waits, before it panics.
async fn deadline(progress: &Progress, name: &str) -> String {
    while !progress.is_over(Duration::ZERO) {
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
    progress.report(name)
}

/// Ends the process if the test blocks its thread. Watches until the returned value is dropped.
fn watch(name: &'static str, progress: Arc<Progress>) -> mpsc::Sender<()> {
    let (running, ended) = mpsc::channel();
    std::thread::spawn(move || {
        while ended.recv_timeout(CHECK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            if progress.is_over(NOMINAL_GRACE) {
                // The test harness captures what the macros print, and would lose it.
                let _ = writeln!(std::io::stderr(), "\n{}", progress.report(name));
                std::process::exit(101);
            }
        }
    });
    running
}

/// Extends the deadline of the test that calls this function.
pub fn allow_more_time(nominal: Duration) {
    PROGRESS.with(|progress| *progress.nominal.lock().unwrap() += nominal);
}

/// Records what the current test waits for, until the returned value is dropped.
pub fn waiting_for(what: &str) -> Waiting {
    let progress = PROGRESS.try_with(Arc::clone).ok();
    if let Some(progress) = &progress {
        progress.waits.lock().unwrap().push(what.to_owned());
    }
    Waiting {
        what: what.to_owned(),
        progress,
    }
}

/// Records what the current test observed last, for the message of a wait that ends without its condition: a condition
/// alone does not say why it is not met.
pub fn observe(what: impl Display) {
    let _ = PROGRESS.try_with(|progress| *progress.observed.lock().unwrap() = Some(what.to_string()));
}

/// The last observation of the current test, as the end of a message.
pub(crate) fn last_observed() -> String {
    let observed = PROGRESS.try_with(|progress| progress.observed.lock().unwrap().clone());
    match observed {
        Ok(Some(observed)) => format!("; the last observation: {observed}"),
        Ok(None) | Err(_) => String::new(),
    }
}

/// Removes what the test waits for from the report when it is dropped.
pub struct Waiting {
    what: String,
    progress: Option<Arc<Progress>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(progress) = &self.progress else { return };
        let mut waits = progress.waits.lock().unwrap();
        if let Some(at) = waits.iter().position(|wait| *wait == self.what) {
            waits.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eventually, eventually_within};

    fn message_of(nominal: Duration, test: impl Future<Output = ()>) -> Option<String> {
        let ended = catch_unwind(AssertUnwindSafe(|| run_for(nominal, "the_test", test)));
        ended
            .err()
            .map(|panic| panic.downcast_ref::<String>().unwrap().clone())
    }

    #[test]
    fn a_test_that_hangs_fails_by_its_name_and_lists_what_it_waits_for() {
        let message = message_of(Duration::ZERO, async {
            tokio::join!(
                eventually("the first condition", async || None::<()>),
                eventually("the second condition", async || None::<()>),
            );
        });
        let message = message.expect("the test fails");
        assert!(message.starts_with("the_test has not ended after "), "{message}");
        let waits = "It waits for: the first condition; the second condition";
        assert!(message.ends_with(waits), "{message}");
    }

    #[test]
    fn a_wait_without_its_condition_fails_with_the_last_observation() {
        let message = message_of(Duration::from_secs(60), async {
            eventually_within(Duration::from_millis(1), "the condition", async || {
                observe("a refusal");
                None::<()>
            })
            .await;
        });
        let message = message.expect("the test fails");
        let end = ": the condition; the last observation: a refusal";
        assert!(message.ends_with(end), "{message}");
    }

    #[test]
    fn a_finished_wait_is_not_listed() {
        let message = message_of(Duration::ZERO, async {
            eventually("the finished condition", async || Some(())).await;
            std::future::pending::<()>().await;
        });
        let message = message.expect("the test fails");
        assert!(message.ends_with("nothing that has a name"), "{message}");
    }

    #[test]
    fn a_test_that_ends_in_time_passes_and_may_extend_its_deadline() {
        let message = message_of(Duration::ZERO, async {
            allow_more_time(Duration::from_secs(60));
            tokio::time::sleep(2 * CHECK_INTERVAL).await;
        });
        assert_eq!(message, None);
    }
}
