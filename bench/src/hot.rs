//! A warm admission, as of nearly every Pod: the review is answered from memory.

use crate::{
    ground::{Asked, Floor, Ground},
    load::{Lasts, Load, Seen, load},
    report::{Curve, Curves, Part, Row, Target, median, time},
    tools::{Tools, on_core},
};
use std::time::Duration;
use testkit::webhook::program;

/// The core of the server. The client has the other core.
pub const CORE: &str = "0";
const CONNECTIONS: [usize; 4] = [1, 4, 16, 64];
/// The rates that have targets for latencies.
const FEW_AND_MANY: [usize; 2] = [1, 64];
pub const PACE: u32 = 50;

/// Alternating rounds of a reference and the webhook, and the duration of each round.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub number: usize,
    pub each: Duration,
}

/// The measurements of a reference and of the webhook in all rounds.
pub struct Pairs {
    reference: &'static str,
    rounds: Vec<(Seen, Seen)>,
}

pub async fn measure(tools: &Tools, ground: &Ground, rounds: Rounds) -> Part {
    let floor = Floor::start_as(on_core(CORE, &tools.floor)).await;
    let webhook = ground.env.replica_by(on_core(CORE, program())).await;
    let floor = ("floor", &ground.ask_floor(&floor));
    let webhook = &ground.ask(&webhook);
    let size = std::fs::metadata(webhook.body()).map_or(0, |file| file.len());
    let (mut rows, mut curves) = (Vec::new(), [Vec::new(), Vec::new()]);
    for connections in CONNECTIONS {
        let pairs = Pairs::measure(tools, floor, webhook, connections, None, rounds).await;
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
    let paced = Pairs::measure(tools, floor, webhook, 4, Some(PACE), rounds).await;
    let what = format!("server CPU per request, {PACE} requests a second");
    rows.push(paced.row(&what, |seen| seen.cpu, Some(1.25)));
    let [of_floor, of_webhook] = curves;
    Part {
        title: "Warm admission",
        how: format!(
            "One review of {size} bytes, as the API server sends it, over HTTP/1.1 and TLS 1.3, on persistent connections. Floor \
             and webhook take turns, {} rounds of {} s each; the server has one core, and oha has the other. Figures and ratios \
             are medians of the rounds.",
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
                    name: "floor".to_owned(),
                    points: of_floor,
                },
                Curve {
                    name: "webhook".to_owned(),
                    points: of_webhook,
                },
            ],
        }],
    }
}

impl Pairs {
    pub async fn measure(
        tools: &Tools,
        (reference, to_reference): (&'static str, &Asked),
        to_webhook: &Asked,
        connections: usize,
        rate: Option<u32>,
        rounds: Rounds,
    ) -> Self {
        let measured = Load {
            connections,
            lasts: Lasts::For(rounds.each),
            rate,
        };
        let mut pairs = Vec::new();
        for round in 0..rounds.number {
            // The order alternates: neither always runs on caches that the other one has warmed.
            let (first, second) = if round % 2 == 0 {
                (to_reference, to_webhook)
            } else {
                (to_webhook, to_reference)
            };
            let first = load(tools, first.target(), measured).await;
            let second = load(tools, second.target(), measured).await;
            pairs.push(if round % 2 == 0 {
                (first, second)
            } else {
                (second, first)
            });
        }
        Self {
            reference,
            rounds: pairs,
        }
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
