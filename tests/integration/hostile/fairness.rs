//! A failing host and a namespace with many failures delay no other namespace.

use super::bystanders::Bystanders;
use azure_emulator::{Effect, Endpoint, Fault};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};
use testkit::{
    azure::{add_registry, set_token_lifetime},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{CLIENT_ID, pod, pull_secret_name, unnamed_pod, with_account},
    review::{post, review},
    speed,
};

const HANGING_REGISTRY: &str = "hangs.azurecr.io";
const UNKNOWN_CLIENT: &str = "99999999-9999-9999-9999-999999999999";
/// Service accounts of the namespace whose registries do not answer.
const ACCOUNTS: usize = 10;
/// Generators for each registry that does not answer.
const TROUBLED: usize = 10;
/// Generators and service accounts whose combinations are all refused.
const GENERATORS: usize = 50;
const REFUSED_ACCOUNTS: usize = 100;
/// The largest number of generators that one Pod may reference.
const REFERENCES: usize = 16;
/// How long the checks last.
const NOMINAL_DURATION: Duration = Duration::from_secs(45);

/// Asserts that the webhook admits a Pod of team B with its token; returns how long that took.
pub async fn admitted(env: &TestEnv, generator: &str) -> Duration {
    let start = Instant::now();
    let answer = post(env, &review(&env.team_b.namespace, &pod("app", generator))).await;
    let response = &answer["response"];
    assert_eq!(
        (&response["allowed"], &response["warnings"]),
        (&json!(true), &Value::Null),
        "{answer}"
    );
    start.elapsed()
}

fn account(n: usize) -> String {
    format!("app-{n}")
}

/// Entra trusts the accounts of team A: their tokens reach the registry that hangs.
fn troubled_azure(world: &mut Value) {
    set_token_lifetime(world, &format!("{}s", speed::seconds(20).as_secs()));
    world["unreachableHosts"] = json!(["login.chinacloudapi.cn"]);
    add_registry(world, HANGING_REGISTRY);
    let trusted = &mut world["tenants"][0]["applications"][0]["federatedCredentials"];
    let trusted = trusted.as_array_mut().unwrap();
    let app = trusted[0].clone();
    trusted.extend((0..ACCOUNTS).map(|n| {
        let mut trust = app.clone();
        trust["subject"] = format!("{}-{n}", app["subject"].as_str().unwrap()).into();
        trust
    }));
}

/// In the namespace of team A, all requests of tokens hang; in the other namespace, all are refused.
async fn create_troubled_objects(env: &TestEnv, refused: &TestNamespace) {
    let hanging = &env.team_a.namespace;
    for n in 0..ACCOUNTS {
        let annotation = (CLIENT_ID, env.team_a.client_id);
        hanging.apply_service_account(&account(n), &[annotation]).await;
    }
    for n in 0..TROUBLED {
        let registry = json!({"registry": HANGING_REGISTRY});
        hanging.apply_generator(&format!("hangs-{n}"), registry).await;
        let china = json!({"registry": "contoso.azurecr.cn", "environmentType": "ChinaCloud"});
        hanging.apply_generator(&format!("dropped-{n}"), china).await;
    }
    for n in 0..GENERATORS {
        refused.apply_generator(&format!("fails-{n}"), json!({})).await;
    }
    for n in 0..REFUSED_ACCOUNTS {
        let annotation = (CLIENT_ID, UNKNOWN_CLIENT);
        refused.apply_service_account(&account(n), &[annotation]).await;
    }
}

/// Creates the Pods of team A. They live on, so the leader also tries to issue their tokens.
async fn create_hanging_pods(env: &TestEnv) -> Vec<Pod> {
    let hanging = &env.team_a.namespace;
    let pods = (0..2 * TROUBLED * ACCOUNTS).map(async |n| {
        let generator = match n / ACCOUNTS {
            hangs if hangs < TROUBLED => format!("hangs-{hangs}"),
            dropped => format!("dropped-{}", dropped - TROUBLED),
        };
        let pod = with_account(unnamed_pod(&generator), &account(n % ACCOUNTS));
        hanging.retry_create_pod(&pod).await
    });
    stream::iter(pods).buffer_unordered(32).collect().await
}

/// Posts reviews of all refused combinations again and again; returns the number of references in them.
async fn post_refused_pods(env: &TestEnv, refused: &TestNamespace, is_over: &AtomicBool) -> usize {
    let generators: Vec<_> = (0..GENERATORS).map(|n| format!("fails-{n}")).collect();
    let annotations: Vec<_> = generators.chunks(REFERENCES).map(|some| some.join(",")).collect();
    let posts = AtomicUsize::new(0);
    while !is_over.load(Ordering::Relaxed) {
        let round = (0..REFUSED_ACCOUNTS * annotations.len()).map(async |n| {
            let annotation = &annotations[n % annotations.len()];
            let pod = with_account(unnamed_pod(annotation), &account(n / annotations.len()));
            // The answer does not matter: the load does.
            let request = env.webhook.client().post(env.webhook.url());
            drop(request.json(&review(refused, &pod)).send().await);
            posts.fetch_add(1, Ordering::Relaxed);
        });
        stream::iter(round).buffer_unordered(16).collect::<Vec<_>>().await;
    }
    posts.into_inner() * GENERATORS / annotations.len()
}

/// Checks bystanders, cold admissions, renewals and memory.
async fn check_third_namespace(env: &TestEnv, bystanders: &Bystanders<'_>, pull_secret: &str) {
    let namespace = &env.team_b.namespace;
    let (mut renewed, mut slowest, mut cold, mut peak) = (BTreeSet::new(), Duration::ZERO, 0, 0);
    let mut times = Vec::new();
    let (start, duration) = (Instant::now(), speed::scaled(NOMINAL_DURATION));
    while start.elapsed() < duration {
        let warm = async || admitted(env, "contoso").await;
        times.push(bystanders.check_admission(warm).await);
        let generator = format!("cold-{cold}");
        namespace.apply_generator(&generator, json!({})).await;
        slowest = slowest.max(admitted(env, &generator).await);
        cold += 1;
        let status = namespace.status(pull_secret).await;
        let expires = status.expiration_time.unwrap().0;
        assert!(expires > Timestamp::now(), "the token of a live Pod has expired");
        renewed.insert(status.last_renewal_time.unwrap().0);
        peak = peak.max(env.webhook.resident());
        bystanders.probe().await;
    }
    bystanders.report(times);
    let renewals = renewed.len() - 1;
    let peak = peak / 1024;
    println!(
        "{cold} cold admissions (slowest {slowest:?}), {renewals} renewals, at most {peak} KiB resident"
    );
    assert!(renewals >= 2, "{renewals} renewals in {duration:?}");
}

/// One registry hangs, and packets to another cloud are dropped, under 200 pull secrets of one namespace; 5,000 combinations
/// of another namespace are refused again and again.
#[testkit::test]
async fn hanging_hosts_and_thousands_of_refusals_delay_no_namespace() {
    let flags = ["--log-level=info", "--max-pull-secrets-per-namespace=5100"];
    let env = TestEnv::leading(&flags, troubled_azure).await;
    let third = &env.team_b.namespace;
    let refused = env
        .create_namespace(&format!("{third}-c"), "nobody", UNKNOWN_CLIENT)
        .await;
    create_troubled_objects(&env, &refused).await;
    let hang = Fault::new(Endpoint::AcrExchange, Effect::Hang).at_host(HANGING_REGISTRY);
    env.azure.set_faults(&[hang]);
    let pull_secret = pull_secret_name(&third.create_pod(&pod("kept", "contoso")).await);
    let bystanders = Bystanders::of_two(&env).await;

    let is_over = AtomicBool::new(false);
    let (pods, references, ()) = tokio::join!(
        create_hanging_pods(&env),
        post_refused_pods(&env, &refused, &is_over),
        async {
            check_third_namespace(&env, &bystanders, &pull_secret).await;
            is_over.store(true, Ordering::Relaxed);
        }
    );
    assert_eq!(pods.len(), 2 * TROUBLED * ACCOUNTS);
    // A back-off from 1 s to 30 s allows a few attempts for each combination, independent of the number of reviews.
    let tries = env.azure.calls_of(UNKNOWN_CLIENT, Endpoint::EntraToken);
    println!("{references} refused references, {tries} calls to Entra in the emulator's bounded log");
    assert!(tries <= 7 * GENERATORS * REFUSED_ACCOUNTS, "{tries}");
    eventually("no refused pull secret is left", async || {
        refused.list_pull_secrets().await.is_empty().then_some(())
    })
    .await;
}
