//! Azure is down for longer than a token lives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use acr_pull_webhook::pull_secret::{ACRPullSecret, ACRPullSecretStatus};
use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::json;

#[testkit::test]
async fn pods_of_an_outage_longer_than_a_tokens_life_are_admitted_and_run_by_themselves_when_it_is_over() {
    let client = client().await;
    azure::ready_with_token_lifetime(&client, "12s").await;
    let served = Scenario::Outage.set_up(&client, json!({})).await;
    served.create_generator("never-asked", json!({})).await;
    let never_served = Scenario::OutageFromTheStart.set_up(&client, json!({})).await;
    let before = create(&served, "before", "contoso").await;
    served.wait_until_running("before").await;

    let ten = [
        (&served, "contoso", "abcd"),
        (&served, "never-asked", "efg"),
        (&never_served, "contoso", "hij"),
    ];
    let ten: Vec<_> = ten
        .into_iter()
        .flat_map(|(team, generator, names)| {
            names.chars().map(move |name| (team, name.to_string(), generator))
        })
        .collect();
    azure::outage(&client, async {
        eventually(
            "the token ends and the pull secret tells why there is no other",
            async || {
                let status = status(&served, &before).await;
                let condition = &status.conditions[0];
                let told = ["EntraUnavailable", "RegistryUnavailable"].contains(&condition.reason.as_str());
                (condition.status == "False" && told && status.expiration_time?.0 < Timestamp::now())
                    .then_some(())
            },
        )
        .await;
        for (team, name, generator) in &ten {
            create(team, name, generator).await;
        }
        for (team, name, _) in &ten {
            team.wait_until_pull_fails(name).await;
        }
    })
    .await;

    for (team, name, _) in &ten {
        team.wait_until_running(name).await;
    }
    served.wait_until_running("before").await;
    eventually("the first pull secret holds a token again", async || {
        status(&served, &before).await.is_ready().then_some(())
    })
    .await;
}

/// Creates a Pod and returns the name of its pull secret.
async fn create(team: &ScenarioNamespace, name: &str, generator: &str) -> String {
    let pod: Pod = team.create_app(name, Some(generator)).await;
    let [pull_secret] = pod.spec.unwrap().image_pull_secrets.unwrap().try_into().unwrap();
    pull_secret.name
}

async fn status(team: &ScenarioNamespace, pull_secret: &str) -> ACRPullSecretStatus {
    let pull_secrets = team.api::<ACRPullSecret>();
    pull_secrets.get(pull_secret).await.unwrap().status.unwrap()
}
