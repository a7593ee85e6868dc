//! Azure in trouble: each trouble on each hop, all at once, each for a workload of its own.

use super::{
    review::{post_within, review},
    site::{Site, add_application, eventually, pod_of, pull_secret_name},
};
use azure_emulator::{Effect, Endpoint, Fault, StatusCode};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// In their order, each with the beginning of the reasons that tell of it.
const HOPS: [(Endpoint, &str); 3] = [
    (Endpoint::EntraToken, "Entra"),
    (Endpoint::AcrExchange, "Registry"),
    (Endpoint::AcrToken, "Registry"),
];

struct Case {
    workload: String,
    client_id: String,
    /// Its place among the hops.
    hop: usize,
    effect: Effect,
    /// In the condition.
    reason: String,
    /// Whether there is no answer before the admission has to end.
    late: bool,
    /// From the beginning of a try to that of the next, at least: the 10 s that a hop may take where it takes them,
    /// and the wait that was asked for, or else the webhook's own shortest one of 5 s.
    apart: Duration,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (hop, (_, whose)) in HOPS.into_iter().enumerate() {
        let mut add = |how: &str, effect: Effect, reason: String, late: bool, apart: u64| {
            cases.push(Case {
                workload: format!("{how}-{hop}"),
                client_id: format!("{:08}-cccc-cccc-cccc-cccccccccccc", cases.len()),
                hop,
                effect,
                reason,
                late,
                apart: Duration::from_secs(apart),
            });
        };
        let (throttled, unavailable) = (format!("{whose}Throttled"), format!("{whose}Unavailable"));
        let throttling = Effect::Status {
            code: StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(20),
            body: None,
        };
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

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_at_whichever_hop_pods_are_admitted_azure_is_spared_and_secrets_follow_by_themselves()
{
    let cases = cases();
    let add_all = |world: &mut Value| {
        for case in &cases {
            add_application(world, &case.workload, &case.client_id);
        }
        // One for each: what one registry asks for or does not answer concerns all that need it.
        let registries = world["registries"].as_array_mut().unwrap();
        let known = registries[0].clone();
        registries.extend(cases.iter().map(|case| {
            let mut registry = known.clone();
            registry["host"] = case.registry().into();
            registry
        }));
    };
    let site = Site::with(&[], add_all).await;
    join_all(cases.iter().map(|case| {
        let scope = format!("repository:{}:pull", site.a.repository);
        let spec = json!({"scope": scope, "registry": case.registry()});
        site.workload(&case.workload, &case.client_id, spec)
    }))
    .await;
    let faults: Vec<_> = cases.iter().map(Case::fault).collect();
    site.emulator.set_faults(&faults);
    let names = join_all(cases.iter().map(|case| case.strikes(&site))).await;
    site.emulator.set_faults(&[]);
    join_all(names.iter().map(|name| follows(&site, name))).await;
    site.assert_no_secret_was_logged();
}

async fn follows(site: &Site, name: &str) {
    let namespace = &site.a.namespace;
    eventually("the Secret follows, and is told of", async || {
        site.secrets(namespace).get_opt(name).await.unwrap()?;
        site.status(namespace, name).await.is_ready().then_some(())
    })
    .await;
}

// === impl Case ===

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

    /// Pods come while the trouble lasts; returns the name of their pull secret.
    async fn strikes(&self, site: &Site) -> String {
        let (namespace, workload) = (&site.a.namespace, &self.workload);
        let start = Instant::now();
        let answer = post_within(site, &review(namespace, &self.pod()), 3).await;
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
            name = pull_secret_name(&site.create(namespace, &self.pod()).await);
            // The last ones come past the webhook's own shortest wait.
            eventually("it is time for the next Pod", async || {
                (start.elapsed() >= pods * Duration::from_millis(700)).then_some(())
            })
            .await;
        }
        let calls = |hop: usize| site.calls_of(&self.client_id, HOPS[hop].0);
        eventually("the trouble is told, and its request is in the log", async || {
            let status = site.pull_secrets(namespace).get(&name).await.unwrap().status?;
            let told = status.conditions.first()?;
            let as_it_is = told.status == "False" && told.reason == self.reason;
            (as_it_is && calls(self.hop) > 0).then_some(())
        })
        .await;
        assert!(site.secrets(namespace).get_opt(&name).await.unwrap().is_none());
        let made: Vec<_> = (0..HOPS.len()).map(calls).collect();
        let tries = 1 + start.elapsed().div_duration_f64(self.apart) as usize;
        for (hop, made) in made.iter().enumerate() {
            let allowed = if hop <= self.hop { 1..=tries } else { 0..=0 };
            assert!(
                allowed.contains(made),
                "{workload}: {made} calls at hop {hop}, {allowed:?} are fine"
            );
        }
        name
    }
}
