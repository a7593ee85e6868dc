//! A warm admission, as of nearly every Pod: the review is answered from memory.

use crate::{
    ground::{Asked, Baseline, Ground},
    load::{Lasts, Load, Seen, load},
    report::{Curve, Curves, Part, Row, Target, median, time},
    tools::{Tools, on_core},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use testkit::webhook::program;

/// The core of the server. The client has the other core.
pub const CORE: &str = "0";
/// The rates that have targets for latencies.
const FEW_AND_MANY: [usize; 2] = [1, 64];
pub const PACE: u32 = 50;

/// The loads of the part, in the order in which they are measured.
const LOADS: [(usize, Option<u32>); 5] = [(1, None), (4, None), (16, None), (64, None), (4, Some(PACE))];
/// The requests before a measurement, after which a new process has reserved its memory and run all code of the path.
const WARM_UP_REQUESTS: usize = 2_000;

/// Alternating rounds of a reference and the webhook, and the duration of each round.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub number: usize,
    pub each: Duration,
}

/// The measurements of a reference and of the webhook in all rounds.
pub struct Pairs {
    reference: &'static str,
    connections: usize,
    rate: Option<u32>,
    rounds: Vec<(Seen, Seen)>,
}

pub async fn measure(tools: &Tools, ground: &Ground, rounds: Rounds) -> Part {
    let mut all = LOADS.map(|(connections, rate)| Pairs::new("baseline", connections, rate));
    let size = ground.review(ground.env.team_a.namespace.name()).len();
    for _ in 0..rounds.number {
        // The time of a request depends on the pages of memory that the kernel has chosen for the program: those of its data,
        // which differ from process to process, and those of its code, which processes of the same file share. With a new
        // process of a new file in each round, that becomes a part of the median.
        let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
        let baseline = on_core(CORE, copy(&tools.baseline, files.path().join("baseline")));
        let baseline = Baseline::start_as(baseline).await;
        let webhook = on_core(CORE, copy(program(), files.path().join("webhook")));
        let webhook = ground.env.replica_by(webhook).await;
        let (to_baseline, to_webhook) = (ground.ask_baseline(&baseline), ground.ask(&webhook));
        warm_up(tools, &[&to_baseline, &to_webhook]).await;
        for pairs in &mut all {
            pairs
                .add_round(tools, &to_baseline, &to_webhook, rounds.each)
                .await;
        }
    }
    let (rows, [of_baseline, of_webhook]) = rows_and_curves(&all);
    Part {
        title: "Warm admission",
        how: format!(
            "One review of {size} bytes, as the API server sends it, over HTTP/1.1 and TLS 1.3, on persistent connections. Baseline \
             and webhook take turns, {} rounds of {} s each with new processes; the server has one core, and oha has the other. \
             Figures and ratios are medians of the rounds.",
            rounds.number,
            rounds.each.as_secs_f64(),
        ),
        rows,
        curves: vec![Curves {
            file: "warm.svg",
            title: "Warm admission: server CPU per request".to_owned(),
            x: "connections",
            y: "µs",
            curves: vec![
                Curve {
                    name: "baseline".to_owned(),
                    points: of_baseline,
                },
                Curve {
                    name: "webhook".to_owned(),
                    points: of_webhook,
                },
            ],
        }],
    }
}

/// The rows of all loads, and the CPU time of the baseline and of the webhook by the number of connections.
fn rows_and_curves(all: &[Pairs]) -> (Vec<Row>, [Vec<(f64, f64)>; 2]) {
    let (mut rows, mut curves) = (Vec::new(), [Vec::new(), Vec::new()]);
    for pairs in all {
        if let Some(rate) = pairs.rate {
            let what = format!("server CPU per request, {rate} requests a second");
            rows.push(pairs.row(&what, |seen| seen.cpu, Some(1.25)));
            continue;
        }
        let connections = pairs.connections;
        let plural = if connections == 1 { "" } else { "s" };
        let at = |what| format!("{what}, {connections} connection{plural}");
        rows.push(pairs.row(&at("server CPU per request"), |seen| seen.cpu, Some(1.15)));
        for (curve, cpu) in curves.iter_mut().zip(pairs.medians(|seen| seen.cpu)) {
            curve.push((connections as f64, cpu.as_secs_f64() * 1e6));
        }
        if FEW_AND_MANY.contains(&connections) {
            rows.push(pairs.row(&at("latency p50"), |seen| seen.p50, Some(1.15)));
            rows.push(pairs.row(&at("latency p99"), |seen| seen.p99, Some(1.3)));
        }
    }
    (rows, curves)
}

impl Pairs {
    pub fn new(reference: &'static str, connections: usize, rate: Option<u32>) -> Self {
        Self {
            reference,
            connections,
            rate,
            rounds: Vec::new(),
        }
    }

    /// Measures the reference and the webhook one after the other.
    pub async fn add_round(
        &mut self,
        tools: &Tools,
        to_reference: &Asked,
        to_webhook: &Asked,
        duration: Duration,
    ) {
        let measured = Load {
            connections: self.connections,
            lasts: Lasts::For(duration),
            rate: self.rate,
        };
        // The order alternates: neither always runs on caches that the other one has warmed.
        let round = if self.rounds.len().is_multiple_of(2) {
            let reference = load(tools, to_reference.target(), measured).await;
            (reference, load(tools, to_webhook.target(), measured).await)
        } else {
            let webhook = load(tools, to_webhook.target(), measured).await;
            (load(tools, to_reference.target(), measured).await, webhook)
        };
        self.rounds.push(round);
    }

    fn medians(&self, figure: impl Fn(&Seen) -> Duration) -> [Duration; 2] {
        [
            median(self.rounds.iter().map(|(reference, _)| figure(reference))),
            median(self.rounds.iter().map(|(_, webhook)| figure(webhook))),
        ]
    }

    pub fn row(&self, what: &str, figure: impl Fn(&Seen) -> Duration, target: Option<f64>) -> Row {
        let [of_reference, of_webhook] = self.medians(&figure);
        let ratios = self
            .rounds
            .iter()
            .map(|(reference, webhook)| figure(webhook).div_duration_f64(figure(reference)));
        Row {
            what: what.to_owned(),
            webhook: time(of_webhook),
            reference: format!("{} {}", self.reference, time(of_reference)),
            ratio: median(ratios),
            target: target.map(Target::AtMost),
        }
    }
}

/// Copies a program, and returns the path of the copy.
fn copy(program: impl AsRef<Path>, to: PathBuf) -> PathBuf {
    std::fs::copy(program, &to).expect("a program can be copied");
    to
}

/// Sends the first requests to each server.
async fn warm_up(tools: &Tools, servers: &[&Asked]) {
    for server in servers {
        let first = Load {
            connections: 1,
            lasts: Lasts::Requests(WARM_UP_REQUESTS),
            rate: None,
        };
        load(tools, server.target(), first).await;
    }
}
