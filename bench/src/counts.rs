//! Instructions and allocations of a warm admission: what noise cannot hide, counted by valgrind over the whole
//! program.

use crate::{
    ground::{Asked, Baseline, Ground},
    report::{Part, Row, Target},
    tools::Tools,
};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::{
    process::Command,
    time::{Duration, Instant, sleep_until},
};

/// The requests that each process answers before the ones that are counted.
const FIRST_REQUESTS: usize = 50;

/// A tool of valgrind, and the line that it prints about a program that has ended.
#[derive(Clone, Copy)]
struct Counter {
    tool: &'static str,
    /// The option for a file that is not read.
    out: &'static str,
    /// The text before the number, and the position of the number in the line.
    before: &'static str,
    position: usize,
}

const INSTRUCTIONS: Counter = Counter {
    tool: "--tool=callgrind",
    out: "--callgrind-out-file=/dev/null",
    before: "Collected : ",
    position: 0,
};
const ALLOCATIONS: Counter = Counter {
    tool: "--tool=dhat",
    out: "--dhat-out-file=/dev/null",
    before: "Total: ",
    // "Total: 1,234 bytes in 56 blocks"
    position: 1,
};

/// `max_ratio` limits the instructions of the webhook, relative to those of the baseline.
pub async fn measure(tools: &Tools, ground: &Ground, requests: usize, max_ratio: f64) -> Part {
    let webhook = testkit::webhook::program();
    let count = async |counter: Counter, baseline: &Path, webhook: &Path| {
        let baseline = counter.cost(baseline, requests, async |command, requests, duration| {
            let mut process = Baseline::start_as(command).await;
            let duration = ask(&ground.ask_baseline(&process), requests, duration).await;
            process.terminate().await;
            duration
        });
        let webhook = counter.cost(webhook, requests, async |command, requests, duration| {
            let mut process = ground.env.replica_by(command).await;
            let duration = ask(&ground.ask(&process), requests, duration).await;
            process.terminate().await;
            duration
        });
        [baseline.await, webhook.await]
    };
    let instructions = count(INSTRUCTIONS, &tools.baseline, Path::new(&webhook)).await;
    // valgrind sees only allocations of an allocator in a shared library.
    let allocations = count(ALLOCATIONS, &tools.baseline_dynamic, &tools.webhook_dynamic).await;
    let row = |what: &str, [baseline, ours]: [f64; 2], target| Row {
        what: what.to_owned(),
        webhook: format!("{ours:.0}"),
        reference: format!("baseline {baseline:.0}"),
        ratio: ours / baseline,
        target,
    };
    Part {
        title: "Counted",
        how: format!(
            "Warm admissions of the same review, one after the other, on one connection, under valgrind: the cost of {requests} \
             admissions, divided by their number. Instructions of the kernel are not counted.",
        ),
        rows: vec![
            row(
                "instructions per request",
                instructions,
                Some(Target::AtMost(max_ratio)),
            ),
            row("allocations per request", allocations, None),
        ],
        curves: Vec::new(),
    }
}

impl Counter {
    /// What one request to this program costs: the difference between two counts, divided by the number of requests. `run` starts
    /// the command, sends it this number of requests, waits until this time has passed, and returns the time.
    ///
    /// The start, the first requests, and what a program does without requests, as the renewal of a Lease, are in both counts
    /// and not in their difference, because both processes answer for the same time. Otherwise the difference is larger on a
    /// busy machine.
    async fn cost(
        self,
        program: &Path,
        requests: usize,
        run: impl AsyncFn(Command, usize, Duration) -> Duration,
    ) -> f64 {
        let count = async |requests, duration| {
            let (command, log) = self.command(program);
            let duration = run(command, requests, duration).await;
            (self.read(&log), duration)
        };
        let (all, duration) = count(FIRST_REQUESTS + requests, Duration::ZERO).await;
        let (first, _) = count(FIRST_REQUESTS, duration).await;
        (all - first) as f64 / requests as f64
    }

    fn command(self, program: &Path) -> (Command, Log) {
        let folder = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
        let log = Log {
            file: folder.path().join("log"),
            _folder: folder,
        };
        let mut command = Command::new("valgrind");
        command.args([self.tool, self.out]);
        command
            .arg(format!("--log-file={}", log.file.display()))
            .arg(program);
        (command, log)
    }

    fn read(self, log: &Log) -> u64 {
        let text = std::fs::read_to_string(&log.file).expect("valgrind has written the file");
        let line = text
            .lines()
            .find_map(|line| Some(line.split_once(self.before)?.1));
        let line = line.unwrap_or_else(|| panic!("valgrind prints {:?} in: {text}", self.before));
        let mut numbers = line
            .split(' ')
            .filter_map(|word| word.replace(',', "").parse().ok());
        numbers.nth(self.position).expect("valgrind prints a number")
    }
}

/// The output file of valgrind.
struct Log {
    file: PathBuf,
    _folder: TempDir,
}

/// Sends this number of requests one after the other, and waits until the time since the first one is at least `duration`.
/// Returns this time.
async fn ask(asked: &Asked, requests: usize, duration: Duration) -> Duration {
    let started = Instant::now();
    let request = asked.request();
    for _ in 0..requests {
        let request = request.try_clone().expect("the body is in memory");
        let reply = request.send().await.expect("the server answers");
        assert_eq!(reply.status(), 200);
        reply.bytes().await.expect("the server answers");
    }
    sleep_until(started + duration).await;
    started.elapsed()
}
