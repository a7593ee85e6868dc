//! Each kind of failure at each hop, all at the same time, each for a workload of its own.

use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use testkit::{
    azure::{add_application, add_registry},
    env::TestEnv,
    eventually,
    objects::{pod_of, pull_secret_name},
    review::{post, post_within, review, short_timeout},
};

/// The hops in their order, with the prefix of the reasons of their failures.
const HOPS: [(Endpoint, &str); 3] = [
    (Endpoint::EntraToken, "Entra"),
    (Endpoint::AcrExchange, "Registry"),
    (Endpoint::AcrToken, "Registry"),
];

/// The answers of a service whose next answer may be a token.
const FAILURES: [StatusCode; 2] = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];

struct Case {
    workload: String,
    client_id: String,
    /// The index of the hop.
    hop: usize,
    effect: Effect,
    /// The reason in the condition.
    reason: String,
    /// Whether the admission ends before the answer.
    late: bool,
    /// The number of attempts that follow the first one within seconds, for admissions that wait.
    quick_retries: usize,
    /// The shortest interval between the starts of two later attempts: the 10 s time-out of a hop that does not answer,
    /// and the requested delay or the webhook's shortest delay of 5 s.
    interval: Duration,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (hop, (_, whose)) in HOPS.into_iter().enumerate() {
        let mut add = |how: &str, effect: Effect, reason: String, late: bool, interval: u64| {
            cases.push(Case {
                workload: format!("{how}-{hop}"),
                client_id: format!("{:08}-cccc-cccc-cccc-cccccccccccc", cases.len()),
                hop,
                effect,
                reason,
                late,
                quick_retries: if how == "throttling" { 0 } else { 2 },
                interval: Duration::from_secs(interval),
            });
        };
        let (throttled, unavailable) = (format!("{whose}Throttled"), format!("{whose}Unavailable"));
        let throttling = Effect::retry_after(StatusCode::TOO_MANY_REQUESTS, 20);
        let down = Effect::status(StatusCode::SERVICE_UNAVAILABLE);
        let slow = Effect::Slow(Duration::from_secs(30));
        add("throttling", throttling, throttled, false, 20);
        add("down", down, unavailable.clone(), false, 5);
        add("resetting", Effect::Reset, unavailable.clone(), false, 5);
        add("hanging", Effect::Hang, unavailable.clone(), true, 15);
        add("slow", slow, unavailable, true, 15);
        if hop == 0 {
            let unknown = "FederatedCredentialNotFound".to_owned();
            add("unknowing", Effect::Aadsts(700_213), unknown, false, 5);
        }
    }
    cases
}

#[testkit::test]
async fn pods_are_admitted_during_failures_and_their_secrets_follow() {
    let cases = cases();
    let add_all = |world: &mut Value| {
        for case in &cases {
            add_application(world, &case.workload, &case.client_id);
        }
        // Each case has a registry of its own, as the failures of a registry affect all its pull secrets.
        for case in &cases {
            add_registry(world, &case.registry());
        }
    };
    let env = TestEnv::with(&[], add_all).await;
    join_all(cases.iter().map(|case| {
        let scope = format!("repository:{}:pull", env.team_a.repository);
        let spec = json!({"scope": scope, "registry": case.registry()});
        env.create_workload(&case.workload, &case.client_id, spec)
    }))
    .await;
    let faults: Vec<_> = cases.iter().map(Case::fault).collect();
    env.azure.set_faults(&faults);
    let names = join_all(cases.iter().map(|case| case.create_pods(&env))).await;
    env.azure.clear_faults();
    join_all(names.iter().map(|name| wait_until_issued(&env, name))).await;
    env.assert_no_secret_was_logged();
}

/// One failed or throttled call of a hop, with seconds of the deadline left, costs the Pod a second and not its token.
#[testkit::test]
async fn one_failed_call_does_not_admit_a_pod_without_its_token() {
    let hops = HOPS
        .iter()
        .flat_map(|(endpoint, _)| FAILURES.map(|code| (*endpoint, code)));
    let cases: Vec<_> = hops
        .enumerate()
        .map(|(number, (endpoint, code))| {
            let workload = format!("workload-{number}");
            let client_id = format!("{number:08}-dddd-dddd-dddd-dddddddddddd");
            (workload, client_id, endpoint, code)
        })
        .collect();
    for policy in ["admit", "deny"] {
        let add_all = |world: &mut Value| {
            for (workload, client_id, ..) in &cases {
                add_application(world, workload, client_id);
            }
        };
        let env = TestEnv::with(&[&format!("--on-upstream-failure={policy}")], add_all).await;
        let mut faults = Vec::new();
        for (workload, client_id, endpoint, code) in &cases {
            let scope = format!("repository:{}:pull", env.team_a.repository);
            env.create_workload(workload, client_id, json!({"scope": scope}))
                .await;
            let failure = Effect::status(*code);
            faults.push(Fault::new(*endpoint, failure).of_client(client_id).times(1));
        }
        env.azure.set_faults(&faults);
        let namespace = &env.team_a.namespace;
        for (workload, client_id, endpoint, code) in &cases {
            let what = format!("{policy} {endpoint:?} {code}");
            let response = post(&env, &review(namespace, &pod_of(workload))).await["response"].clone();
            assert_eq!(response["allowed"], json!(true), "{what}: {response}");
            assert_eq!(response["warnings"], Value::Null, "{what}: {response}");
            let name = pull_secret_name(&namespace.create_pod(&pod_of(workload)).await);
            let secret = namespace.secrets().get_opt(&name).await.unwrap();
            assert!(secret.is_some(), "{what}");
            assert_eq!(env.azure.calls_of(client_id, *endpoint), 2, "{what}");
        }
    }
}

async fn wait_until_issued(env: &TestEnv, name: &str) {
    let namespace = &env.team_a.namespace;
    eventually("the Secret is written, and its status reports it", async || {
        namespace.secrets().get_opt(name).await.unwrap()?;
        namespace.status(name).await.is_ready().then_some(())
    })
    .await;
}

impl Case {
    fn fault(&self) -> Fault {
        Fault::new(HOPS[self.hop].0, self.effect.clone()).of_client(&self.client_id)
    }

    fn registry(&self) -> String {
        format!("{}.azurecr.io", self.workload)
    }

    fn pod(&self) -> Pod {
        let mut pod = pod_of(&self.workload);
        pod.spec.as_mut().unwrap().containers[0].image = Some(format!("{}/app:1", self.registry()));
        pod
    }

    /// Creates Pods during the failure; returns the name of their pull secret.
    async fn create_pods(&self, env: &TestEnv) -> String {
        let (namespace, workload) = (&env.team_a.namespace, &self.workload);
        let start = Instant::now();
        let answer = post_within(env, &review(namespace, &self.pod()), short_timeout()).await;
        let response = &answer["response"];
        assert_eq!(
            (&response["allowed"], &response["patchType"]),
            (&json!(true), &json!("JSONPatch")),
            "{workload}: {answer}"
        );
        let warning = response["warnings"][0].as_str().unwrap();
        let warned = if self.late {
            "UpstreamTimeout"
        } else {
            &self.reason
        };
        assert!(warning.contains(warned), "{workload}: {warning}");

        let mut name = String::new();
        for pods in 1..=12 {
            name = pull_secret_name(&namespace.create_pod(&self.pod()).await);
            // The last Pods are created after the webhook's shortest delay.
            eventually("the next Pod is due", async || {
                (start.elapsed() >= pods * Duration::from_millis(700)).then_some(())
            })
            .await;
        }
        let calls = |hop: usize| env.azure.calls_of(&self.client_id, HOPS[hop].0);
        eventually("the condition reports the failure", async || {
            let status = namespace.pull_secret(&name).await.status?;
            let ready = status.conditions.first()?;
            let is_reported = ready.status == "False" && ready.reason == self.reason;
            (is_reported && calls(self.hop) > 0).then_some(())
        })
        .await;
        assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());
        let counts: Vec<_> = (0..HOPS.len()).map(calls).collect();
        let attempts = 1 + self.quick_retries + start.elapsed().div_duration_f64(self.interval) as usize;
        for (hop, count) in counts.iter().enumerate() {
            let allowed = if hop <= self.hop { 1..=attempts } else { 0..=0 };
            assert!(
                allowed.contains(count),
                "{workload}: {count} calls at hop {hop}, {allowed:?} are allowed"
            );
        }
        name
    }
}
