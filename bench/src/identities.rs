//! The start of a cluster: the first Pods of very many identities at the same time.

use crate::{
    crowd::Crowd,
    process,
    report::{Curve, Curves, Part, Row, Target, median, time},
};
use futures::future::join_all;
use std::time::{Duration, Instant};

/// The delay of each hop to Azure.
const DELAY: Duration = Duration::from_millis(100);
/// The time-out of the API server.
const DEADLINE: Duration = Duration::from_secs(10);
/// Consecutive cold admissions, which determine the duration of one.
const ALONE: usize = 10;

/// The number of identities, and for how many of them the webhook issues tokens concurrently.
#[derive(Clone, Copy)]
pub struct Wave {
    pub identities: usize,
    pub concurrency: usize,
}

pub async fn measure(waves: &[Wave]) -> Part {
    let (mut rows, mut curves) = (Vec::new(), [Vec::new(), Vec::new()]);
    for &wave in waves {
        let (bound, took) = measure_one(wave, &mut rows).await;
        for (curve, took) in curves.iter_mut().zip([bound, took]) {
            curve.push((wave.identities as f64, took.as_secs_f64()));
        }
    }
    let [of_bound, of_webhook] = curves;
    Part {
        title: "Many identities",
        how: format!(
            "The first Pods of many identities at the same time, on one replica; Azure delays each of two hops by {}. The \
             reference is the duration if as many issue at the same time as `--issue-concurrency` allows, each as fast as alone. \
             The API server, etcd and azure-emulator use the same processors as the webhook, and limit the larger runs.",
            time(DELAY),
        ),
        rows,
        curves: vec![Curves {
            file: "identities.svg",
            title: "Many identities: until the last has its token".to_owned(),
            x: "identities",
            y: "s",
            curves: vec![
                Curve {
                    name: "bound".to_owned(),
                    points: of_bound,
                },
                Curve {
                    name: "webhook".to_owned(),
                    points: of_webhook,
                },
            ],
        }],
    }
}

/// The limit and the duration.
async fn measure_one(
    Wave {
        identities,
        concurrency,
    }: Wave,
    rows: &mut Vec<Row>,
) -> (Duration, Duration) {
    let concurrency_flag = format!("--issue-concurrency={concurrency}");
    // More than the default: each Pod waits on a connection of its own.
    let connections_flag = format!("--max-connections={}", 2 * identities);
    let flags = [concurrency_flag.as_str(), &connections_flag];
    let crowd = Crowd::with_flags(identities + ALONE + 1, &flags).await;
    crowd.set_delay(DELAY);
    let asker = crowd.asker(&crowd.env.webhook);
    asker.ask(0).await;
    let mut alone = Vec::new();
    for n in 1..=ALONE {
        alone.push(asker.ask(n).await.took);
    }
    let alone = median(alone);
    let asker = crowd.connected_asker(&crowd.env.webhook, identities).await;
    let (began, cpu) = (Instant::now(), process::cpu(crowd.env.webhook.process()));
    let answers = join_all((ALONE + 1..=ALONE + identities).map(|n| asker.ask(n))).await;
    let took = began.elapsed();
    let cpu = process::cpu(crowd.env.webhook.process()) - cpu;
    let bound = alone * u32::try_from(identities.div_ceil(concurrency)).expect("the number is small");
    let what = format!("{identities} identities, {concurrency} at a time");
    rows.push(Row {
        what: format!("{what}: until the last one has its token"),
        webhook: time(took),
        reference: format!("{} each when alone: {}", time(alone), time(bound)),
        ratio: bound.div_duration_f64(took),
        target: Some(Target::AtLeast(0.9)),
    });
    let late = answers
        .iter()
        .filter(|a| !a.complete || a.took > DEADLINE)
        .count();
    let slowest = answers.iter().map(|a| a.took).max().unwrap_or_default();
    rows.push(Row {
        what: format!("{what}: admitted without a token, or late"),
        webhook: format!("{late}; the slowest took {}", time(slowest)),
        reference: format!("the API server waits {}", time(DEADLINE)),
        ratio: late as f64 / identities as f64,
        target: Some(Target::AtMost(0.0)),
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let all = took * u32::try_from(cores).expect("the number is small");
    rows.push(Row {
        what: format!("{what}: CPU of the webhook for each"),
        webhook: time(cpu / u32::try_from(identities).expect("the number is small")),
        reference: format!(
            "of {} that there was on {cores} cores",
            time(all / u32::try_from(identities).expect("the number is small"))
        ),
        ratio: cpu.div_duration_f64(all),
        target: None,
    });
    (bound, took)
}
