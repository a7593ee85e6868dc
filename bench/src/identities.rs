//! A cluster that wakes up: the first Pods of very many identities at once.

use crate::{
    crowd::Crowd,
    report::{Curve, Curves, Part, Row, Target, median, time},
};
use futures::future::join_all;
use std::time::{Duration, Instant};

/// How late Azure answers at each hop.
const DELAY: Duration = Duration::from_millis(100);
/// When the API server gives up.
const DEADLINE: Duration = Duration::from_secs(10);
/// Cold admissions one by one, for the time of one.
const ALONE: usize = 10;
/// How many pull secrets the webhook issues at a time.
const CONCURRENCY: usize = 64;

pub async fn measure(sizes: &[usize]) -> Part {
    let crowd = Crowd::new(sizes.iter().sum::<usize>() + ALONE + 1).await;
    crowd.set_delay(DELAY);
    let asker = crowd.asker(&crowd.site.webhook);
    asker.ask(0).await;
    let mut alone = Vec::new();
    for n in 1..=ALONE {
        alone.push(asker.ask(n).await.took);
    }
    let alone = median(alone);
    asker
        .connect(sizes.iter().copied().max().unwrap_or_default())
        .await;
    let mut next = ALONE + 1;
    let (mut rows, mut curves) = (Vec::new(), [Vec::new(), Vec::new()]);
    for &size in sizes {
        let numbers = next..next + size;
        next += size;
        let began = Instant::now();
        let answers = join_all(numbers.clone().map(|n| asker.ask(n))).await;
        let took = began.elapsed();
        let bound = alone * u32::try_from(size.div_ceil(CONCURRENCY)).expect("it is small");
        rows.push(Row {
            what: format!("{size} identities: until the last one has its token"),
            ours: time(took),
            beside: format!("{CONCURRENCY} at a time, {} each: {}", time(alone), time(bound)),
            ratio: bound.div_duration_f64(took),
            target: Some(Target::AtLeast(0.9)),
        });
        let late = answers
            .iter()
            .filter(|a| !a.complete || a.took > DEADLINE)
            .count();
        let slowest = answers.iter().map(|a| a.took).max().unwrap_or_default();
        rows.push(Row {
            what: format!("{size} identities: admitted without a token, or late"),
            ours: format!("{late}; the slowest took {}", time(slowest)),
            beside: format!("the API server waits {}", time(DEADLINE)),
            ratio: late as f64 / size as f64,
            target: Some(Target::AtMost(0.0)),
        });
        for (curve, took) in curves.iter_mut().zip([bound, took]) {
            curve.push((size as f64, took.as_secs_f64()));
        }
    }
    let [of_bound, of_webhook] = curves;
    Part {
        title: "Many identities",
        how: format!(
            "The first Pods of so many identities at once, one replica; Azure answers {} late at each of two hops. The bound is \
             what it may do at a time, each as fast as it is alone.",
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
