//! A Deployment with thousands of Pods: many simultaneous Pods of one identity without a token, and two replicas.

use crate::{
    crowd::Crowd,
    ground::{Asked, Baseline},
    load::{Lasts, Load, load},
    report::{Curve, Curves, Part, Row, Target, median, time},
    tools::Tools,
};
use std::time::Duration;
use tempfile::TempDir;

/// The delay of each hop to Azure.
const DELAY: Duration = Duration::from_millis(50);
/// The connections to each replica.
const CONNECTIONS: usize = 100;
const REPLICAS: usize = 2;

pub async fn measure(tools: &Tools, sizes: &[usize], rounds: usize) -> Part {
    let crowd = Crowd::new(REPLICAS + 2 * rounds * sizes.len()).await;
    crowd.set_delay(DELAY);
    let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
    let other = crowd.env.replica().await;
    let webhooks = [&crowd.env.webhook, &other];
    let baselines = [Baseline::start(tools).await, Baseline::start(tools).await];
    let askers = webhooks.map(|webhook| crowd.asker(webhook));
    // The connections to Azure are open.
    for (n, asker) in askers.iter().enumerate() {
        asker.ask(n).await;
    }
    let (mut rows, mut curves) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut next = REPLICAS;
    for &size in sizes {
        let (mut bursts, mut sequences) = (Vec::new(), 0);
        for _ in 0..rounds {
            let (alone, all) = (next, next + 1);
            next += 2;
            let cold = askers[0].ask(alone).await.took;
            let body = askers[0].review(all).to_string();
            let asked = |name: &str, url: &str, ca_pem: &str, process| {
                let name = format!("{name}-{all}");
                Asked::new(files.path(), &name, url, ca_pem, process, &body)
            };
            let of_baselines = baselines
                .each_ref()
                .map(|f| asked("baseline", &f.url, &f.ca_pem, f.process()));
            let of_webhooks = webhooks.map(|w| asked("webhook", &w.url(), &w.ca_pem, w.process()));
            let baseline = burst(tools, &of_baselines, size).await;
            bursts.push((cold, baseline, burst(tools, &of_webhooks, size).await));
            sequences = sequences.max(crowd.sequences(all));
        }
        let [cold, baseline, took] = medians(&bursts);
        rows.extend(rows_of(size, &bursts, sequences));
        for (curve, took) in curves.iter_mut().zip([cold + baseline, took]) {
            curve.push((size as f64, took.as_secs_f64()));
        }
    }
    Part {
        title: "Burst",
        how: format!(
            "Pods of one identity at the same time, on {CONNECTIONS} connections to each of {REPLICAS} replicas, which do not have \
             a token for it yet; Azure delays each hop by {}. The reference is one cold admission plus the duration of the same \
             burst on {REPLICAS} baselines. Medians of {rounds}.",
            time(DELAY),
        ),
        rows,
        curves: vec![plot(curves)],
    }
}

/// The two rows of a size: the time, and the number of tokens.
fn rows_of(size: usize, bursts: &[(Duration, Duration, Duration)], sequences: usize) -> [Row; 2] {
    let [cold, baseline, took] = medians(bursts);
    let ratio =
        |(cold, baseline, took): &(Duration, Duration, Duration)| took.div_duration_f64(*cold + *baseline);
    [
        Row {
            what: format!("{size} Pods: until the last one is admitted"),
            webhook: time(took),
            reference: format!("cold {} + baseline {}", time(cold), time(baseline)),
            ratio: median(bursts.iter().map(ratio)),
            target: Some(Target::AtMost(1.0)),
        },
        Row {
            what: format!("{size} Pods: tokens asked for, at most"),
            webhook: sequences.to_string(),
            reference: format!("{REPLICAS} replicas"),
            ratio: sequences as f64 / REPLICAS as f64,
            target: Some(Target::AtMost(1.0)),
        },
    ]
}

/// The medians of one cold admission, of the baselines and of the webhooks.
fn medians(bursts: &[(Duration, Duration, Duration)]) -> [Duration; 3] {
    [
        median(bursts.iter().map(|b| b.0)),
        median(bursts.iter().map(|b| b.1)),
        median(bursts.iter().map(|b| b.2)),
    ]
}

/// The plot of one cold admission with the baselines, and of the webhooks.
fn plot([of_bound, of_webhook]: [Vec<(f64, f64)>; 2]) -> Curves {
    Curves {
        file: "burst.svg",
        title: "Burst: until the last Pod is admitted".to_owned(),
        x: "Pods",
        y: "s",
        curves: vec![
            Curve {
                name: "cold + baseline".to_owned(),
                points: of_bound,
            },
            Curve {
                name: "webhook".to_owned(),
                points: of_webhook,
            },
        ],
    }
}

/// The duration of the slower half.
async fn burst(tools: &Tools, servers: &[Asked; REPLICAS], size: usize) -> Duration {
    let half = Load {
        connections: CONNECTIONS,
        lasts: Lasts::Requests(size / REPLICAS),
        rate: None,
    };
    let [a, b] = servers;
    let (a, b) = tokio::join!(load(tools, a.target(), half), load(tools, b.target(), half));
    a.took.max(b.took)
}
