//! Many pull secrets whose tokens expire soon. `make soak` runs this test with 1,000 pull secrets for five minutes,
//! which it sets with SOAK_PULL_SECRETS and SOAK_SECONDS.

use acr_pull_webhook::pull_secret::ACRPullSecret;
use azure_emulator::Endpoint;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::json;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use testkit::{
    azure::set_token_lifetime,
    env::TestEnv,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name},
};
use tokio::time::{MissedTickBehavior, interval};

const LIFE: f64 = 20.0;
/// The average interval between renewals, as a share of the lifetime: two thirds, and half of the tenth over which
/// renewals are spread.
const RENEWAL_SHARE: f64 = 2.0 / 3.0 + 0.05;
/// Much shorter than a lifetime, so that no renewal is missed.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a whole number"))
}

/// What was observed of all pull secrets.
#[derive(Default)]
struct Observed {
    renewed: HashMap<String, Timestamp>,
    lives: Vec<f64>,
    shortest_left: Option<f64>,
}

impl Observed {
    fn take(&mut self, all: &[ACRPullSecret], now: Timestamp) {
        for object in all {
            let status = object.status.as_ref().unwrap();
            let (name, renewed) = (object.name_any(), status.last_renewal_time.as_ref().unwrap().0);
            let expires = status.expiration_time.as_ref().unwrap().0;
            let left = expires.duration_since(now).as_secs_f64();
            assert!(left > 0.0 && status.is_ready(), "{name} has expired: {status:?}");
            self.shortest_left = Some(self.shortest_left.map_or(left, |shortest| shortest.min(left)));
            if self.renewed.insert(name, renewed) != Some(renewed) {
                self.lives.push(expires.duration_since(renewed).as_secs_f64());
            }
        }
    }

    fn mean_life(&self) -> f64 {
        self.lives.iter().sum::<f64>() / self.lives.len() as f64
    }
}

/// Creates pull secrets one after the other over one period, so that renewals are even from the beginning.
async fn create_pull_secrets(namespace: &TestNamespace, count: u32) {
    let mut turns = interval(Duration::from_secs_f64(LIFE * RENEWAL_SHARE / f64::from(count)));
    turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let turns = stream::unfold(turns, async |mut turns| {
        turns.tick().await;
        Some(((), turns))
    });
    let created = turns.zip(stream::iter(0..count)).map(async |((), n)| {
        let generator = format!("generator-{n}");
        namespace.apply_generator(&generator, json!({})).await;
        pull_secret_name(&namespace.create_pod(&pod(&generator, &generator)).await)
    });
    let names: Vec<_> = created.buffer_unordered(32).collect().await;
    assert_eq!(names.len(), count as usize);
}

/// The number of calls to Entra since the record `last`, which becomes the newest record.
fn new_calls(env: &TestEnv, last: &mut u64) -> usize {
    let mut new = env.azure.requests();
    new.retain(|record| record.seq > *last);
    // The log of the emulator is bounded.
    assert!(new.first().is_none_or(|record| record.seq == *last + 1));
    *last = new.last().map_or(*last, |record| record.seq);
    new.retain(|record| record.endpoint == Some(Endpoint::EntraToken));
    new.len()
}

#[testkit::test]
async fn many_pull_secrets_are_renewed_in_time_without_extra_calls() {
    let (count, seconds) = (setting("SOAK_PULL_SECRETS", 60), setting("SOAK_SECONDS", 45));
    testkit::allow_more_time(Duration::from_secs(seconds.into()));
    let flags = [
        "--renewal-rate=500",
        "--renewal-concurrency=100",
        "--max-pull-secrets-per-namespace=1000000",
        "--log-level=info",
    ];
    let env = TestEnv::leading(&flags, |world| set_token_lifetime(world, &format!("{LIFE}s"))).await;
    let namespace = &env.team_a.namespace;
    create_pull_secrets(namespace, count).await;

    let mut observed = Observed::default();
    let (mut calls, mut last) = (0, env.azure.requests().last().map_or(0, |record| record.seq));
    let (begin, length) = (Instant::now(), Duration::from_secs(seconds.into()));
    let mut checks = interval(CHECK_INTERVAL);
    while begin.elapsed() < length {
        checks.tick().await;
        let all = namespace.list_pull_secrets().await;
        assert_eq!(all.len(), count as usize);
        observed.take(&all, Timestamp::now());
        calls += new_calls(&env, &mut last);
    }
    let took = begin.elapsed().as_secs_f64();
    let expected = f64::from(count) * took / (observed.mean_life() * RENEWAL_SHARE);
    let ratio = calls as f64 / expected;
    println!(
        "{count} pull secrets of {LIFE} s for {took:.0} s: {calls} calls to Entra, {expected:.0} expected, ratio {ratio:.3}; \
         at least {:.1} s of life left, none expired",
        observed.shortest_left.unwrap()
    );
    assert!((0.9..=1.1).contains(&ratio), "{ratio}");
}
