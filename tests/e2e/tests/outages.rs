//! An outage of Azure that is longer than the lifetime of a token.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

#[testkit::test]
async fn pods_admitted_during_an_outage_run_after_it() {
    let client = client().await;
    azure::ready_with_token_lifetime(&client, "12s").await;
    let served = Scenario::Outage.set_up(&client, json!({})).await;
    served.create_generator("never-asked", json!({})).await;
    let never_served = Scenario::OutageFromTheStart.set_up(&client, json!({})).await;
    let before = create(&served, "before", "contoso").await;
    served.wait_until_running("before").await;

    let pods = [
        (&served, "contoso", "abcd"),
        (&served, "never-asked", "efg"),
        (&never_served, "contoso", "hij"),
    ];
    let pods: Vec<_> = pods
        .into_iter()
        .flat_map(|(namespace, generator, names)| {
            names
                .chars()
                .map(move |name| (namespace, name.to_string(), generator))
        })
        .collect();
    azure::outage(&client, async {
        eventually(
            "the token expires and the condition states why there is no new one",
            async || {
                // The write of the first status can fail, which does not delay the Pod.
                let status = served.pull_secret(&before).await.status?;
                let condition = &status.conditions[0];
                let is_outage =
                    ["EntraUnavailable", "RegistryUnavailable"].contains(&condition.reason.as_str());
                (condition.status == "False" && is_outage && status.expiration_time?.0 < Timestamp::now())
                    .then_some(())
            },
        )
        .await;
        // At the same time: the longer the outage, the longer the kubelet waits until it pulls again.
        let created = pods
            .iter()
            .map(|(namespace, name, generator)| create(namespace, name, generator));
        join_all(created).await;
        for (namespace, name, _) in &pods {
            namespace.wait_until_pull_fails(name).await;
        }
    })
    .await;

    for (namespace, name, _) in &pods {
        namespace.wait_until_running(name).await;
    }
    served.wait_until_running("before").await;
    eventually("the first pull secret has a token again", async || {
        served.status(&before).await.is_ready().then_some(())
    })
    .await;
}

/// Creates a Pod and returns the name of its pull secret.
async fn create(namespace: &ScenarioNamespace, name: &str, generator: &str) -> String {
    let pod = namespace.create_app(name, Some(generator)).await;
    let [pull_secret] = pod.spec.unwrap().image_pull_secrets.unwrap().try_into().unwrap();
    pull_secret.name
}
