//! The tables and curves of memory, start and renewals.

use super::{Found, MIB, PODS_EACH, REAL_LIFE, RENEWED_AT};
use crate::report::{Curve, Curves, Part, Row, Target, bytes, time};
use std::time::Duration;
use testkit::webhook::program;

/// The number of pull secrets for which all memory of the leader has a limit, with [`PODS_EACH`] Pods for each.
const LARGE_CLUSTER: usize = 10_000;
const LARGE_CLUSTER_LIMIT: f64 = 70.0 * MIB;

fn curve(name: &str, all: &[Found], y: impl Fn(&Found) -> f64) -> Curve {
    let points = all
        .iter()
        .map(|found| (found.size.pull_secrets as f64, y(found)))
        .collect();
    Curve {
        name: name.to_owned(),
        points,
    }
}

pub fn memory(idle: u64, baseline: u64, all: &[Found]) -> Part {
    let mut rows = vec![Row {
        what: "idle".to_owned(),
        webhook: bytes(idle as f64),
        reference: format!(
            "12 MiB (the baseline, without objects, has {})",
            bytes(baseline as f64)
        ),
        ratio: idle as f64 / (12.0 * MIB),
        target: Some(Target::AtMost(1.0)),
    }];
    for found in all {
        let (alone, with_pods) = found.memory;
        let (number, pods) = (found.size.pull_secrets, found.pods);
        for (what, more, number, limit) in [
            ("pull secret", alone.saturating_sub(idle), number, 3072.0),
            ("Pod", with_pods.saturating_sub(alone), pods, 1024.0),
        ] {
            let each = more as f64 / number as f64;
            rows.push(Row {
                what: format!("for each {what} of {number}"),
                webhook: format!("{} ({} in all)", bytes(each), bytes(more as f64)),
                reference: bytes(limit),
                ratio: each / limit,
                target: Some(Target::AtMost(1.0)),
            });
        }
        if number == LARGE_CLUSTER {
            rows.push(Row {
                what: format!("{number} pull secrets and {pods} Pods, in all"),
                webhook: bytes(with_pods as f64),
                reference: bytes(LARGE_CLUSTER_LIMIT),
                ratio: with_pods as f64 / LARGE_CLUSTER_LIMIT,
                target: Some(Target::AtMost(1.0)),
            });
        }
    }
    Part {
        title: "Memory",
        how: format!(
            "Resident memory of a leader after its start: without objects, with this number of pull secrets, and with {PODS_EACH} \
             live Pods for each pull secret.",
        ),
        rows,
        curves: vec![Curves {
            file: "memory.svg",
            title: format!("Memory of the leader, with {PODS_EACH} Pods for each pull secret"),
            x: "pull secrets",
            y: "MiB",
            curves: vec![
                curve("pull secrets alone", all, |found| found.memory.0 as f64 / MIB),
                curve("with their Pods", all, |found| found.memory.1 as f64 / MIB),
            ],
        }],
    }
}

pub fn start((idle, baseline): (Duration, Duration), starts: usize, all: &[Found]) -> Part {
    let row = |what: String, took: Duration, target: Option<Target>| Row {
        what,
        webhook: time(took),
        reference: format!(
            "30 ms (the baseline, without objects, answers after {})",
            time(baseline)
        ),
        ratio: took.as_secs_f64() / 0.03,
        target,
    };
    let mut rows = vec![row(
        "until ready, nothing to know".to_owned(),
        idle,
        Some(Target::AtMost(1.0)),
    )];
    for found in all {
        let what = format!(
            "until ready, {} pull secrets and {} Pods",
            found.size.pull_secrets, found.pods
        );
        rows.push(row(what, found.ready, None));
    }
    let size = std::fs::metadata(program()).map_or(0, |file| file.len()) as f64 / 1e6;
    rows.push(Row {
        what: "the program, which is all of the image".to_owned(),
        webhook: format!("{size:.1} MB"),
        reference: "14 MB".to_owned(),
        ratio: size / 14.0,
        target: Some(Target::AtMost(1.0)),
    });
    Part {
        title: "Start",
        how: format!(
            "From the start of the process until /readyz returns 200, which requires all objects that an admission needs. The \
             first row has the medians of {starts} starts.",
        ),
        rows,
        curves: vec![Curves {
            file: "start.svg",
            title: "Start: until ready".to_owned(),
            x: "pull secrets",
            y: "ms",
            curves: vec![curve("webhook", all, |found| found.ready.as_secs_f64() * 1e3)],
        }],
    }
}

pub fn renewal(all: &[Found]) -> Part {
    let mut rows = Vec::new();
    for found in all {
        let number = found.size.pull_secrets;
        let hourly = number as f64 * 3600.0 / (REAL_LIFE.as_secs_f64() * RENEWED_AT);
        for (what, count, limit) in [
            ("calls to Entra", found.entra, 1.0),
            ("exchanges with the registry", found.acr, 1.0),
            ("writes to the API server", found.writes, 2.0),
        ] {
            let each = found.each(count);
            rows.push(Row {
                what: format!("{what} for each renewal of {number}"),
                webhook: format!("{each:.2}; {:.0} an hour with tokens of 3 h", each * hourly),
                reference: format!("{limit}"),
                ratio: each / limit,
                target: Some(Target::AtMost(1.0)),
            });
        }
        let share = found.cpu.as_secs_f64() * found.renewed as f64 / found.took.as_secs_f64();
        rows.push(Row {
            what: format!("CPU for each renewal of {number}"),
            webhook: format!(
                "{}; {} an hour with tokens of 3 h",
                time(found.cpu),
                time(found.cpu.mul_f64(hourly))
            ),
            reference: format!(
                "{:.0} renewals a second took {share:.2} of a core",
                found.renewed as f64 / found.took.as_secs_f64()
            ),
            ratio: found.cpu.div_duration_f64(all[0].cpu),
            target: None,
        });
    }
    Part {
        title: "Renewal",
        how: "All pull secrets are renewed once, as fast as the machine allows. The metrics of the webhook and of the API server \
              count the calls. The ratio of CPU is to the CPU of the first size."
            .to_owned(),
        rows,
        curves: vec![Curves {
            file: "renewal.svg",
            title: "Renewal: CPU for each".to_owned(),
            x: "pull secrets",
            y: "ms",
            curves: vec![curve("webhook", all, |found| found.cpu.as_secs_f64() * 1e3)],
        }],
    }
}
