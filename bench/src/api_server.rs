//! The time of the creation of a Pod at the real API server.

use crate::{
    ground::{BASELINE_NAMESPACE, Ground, NO_WEBHOOK_NAMESPACE},
    report::{Part, Row, Target, median, time},
    request::pod,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::time::{Duration, Instant};
use testkit::objects::dry_run;

pub async fn measure(ground: &Ground, number: usize) -> Part {
    let env = &ground.env;
    let of = |namespace: &str| Api::<Pod>::namespaced(env.client.clone(), namespace);
    let all = [
        of(NO_WEBHOOK_NAMESPACE),
        of(BASELINE_NAMESPACE),
        of(env.team_a.namespace.name()),
    ];
    let (params, pod) = (dry_run(), pod());
    let mut took: [Vec<Duration>; 3] = Default::default();
    for n in 0..number {
        for turn in 0..all.len() {
            // Each namespace follows each of the others equally often.
            let who = (turn + n) % all.len();
            let began = Instant::now();
            all[who]
                .create(&params, &pod)
                .await
                .expect("a Pod can be created");
            took[who].push(began.elapsed());
        }
    }
    let [alone, baseline, webhook] = took.map(median);
    let (of_baseline, of_webhook) = (baseline.saturating_sub(alone), webhook.saturating_sub(alone));
    Part {
        title: "Seen by the API server",
        how: format!(
            "Creations of the same Pod as a dry run, through the real API server, one after the other: in turn in a namespace \
             without a webhook, in one whose Pods are sent to the baseline, and in one whose Pods are sent to the webhook. Both are \
             registered in the same way. Medians of {number}.",
        ),
        rows: vec![Row {
            what: format!("added to a creation (it takes {} without a webhook)", time(alone)),
            webhook: time(of_webhook),
            reference: format!("baseline {}", time(of_baseline)),
            ratio: of_webhook.div_duration_f64(of_baseline),
            target: Some(Target::AtMost(1.2)),
        }],
        curves: Vec::new(),
    }
}
