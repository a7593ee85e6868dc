//! Pods that are created without pause, while something happens to the webhook.

use crate::scenario::ScenarioNamespace;
use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;
use std::cell::Cell;
use testkit::objects::{ANNOTATION, from, pod_json};

const CREATORS: usize = 4;
/// Far fewer than are created in the time of any rollout.
pub const FEW: usize = 50;

/// Creates Pods while `during` lasts, which may look at how many there were so far: none of them may be refused or left
/// unpatched.
pub async fn while_pods_are_created(team: &ScenarioNamespace, during: impl AsyncFnOnce(&Cell<usize>)) {
    let (created, ended) = (Cell::new(0), Cell::new(false));
    let creators = join_all((0..CREATORS).map(|n| create(team, n, &created, &ended)));
    let during = async {
        during(&created).await;
        ended.set(true);
    };
    let (wrong, ()) = tokio::join!(creators, during);
    let (wrong, created) = (wrong.concat(), created.get());
    assert!(wrong.is_empty(), "{} of {created}: {wrong:#?}", wrong.len());
}

/// Creates and deletes Pods until told to end; returns what was wrong with them.
async fn create(
    team: &ScenarioNamespace,
    creator: usize,
    created: &Cell<usize>,
    ended: &Cell<bool>,
) -> Vec<String> {
    let pods = team.api::<Pod>();
    let mut wrong = Vec::new();
    for n in 0.. {
        if ended.get() {
            break;
        }
        let name = format!("app-{creator}-{n}");
        // Some have to wait for a token, the others find it there.
        let fresh = n % 10 == 0;
        let generator = if fresh { name.as_str() } else { "contoso" };
        if fresh {
            team.create_generator(generator, json!({})).await;
        }
        let mut pod = pod_json(&name, &team.scenario.image(), json!({ANNOTATION: generator}));
        // Admission is all that matters: no node is bothered.
        pod["spec"]["schedulingGates"] = json!([{"name": "acr-pull.dev/e2e"}]);
        match team.try_create_pod(&from(pod)).await {
            Err(error) => wrong.push(format!("{} {name}: {error}", Timestamp::now())),
            Ok(pod) => {
                let labelled = pod
                    .labels()
                    .get("acr-pull.dev/injected")
                    .is_some_and(|value| value == "true");
                if !labelled || pod.spec.unwrap().image_pull_secrets.is_none() {
                    wrong.push(format!("{} {name} was not patched", Timestamp::now()));
                }
                pods.delete(&name, &DeleteParams::default()).await.unwrap();
            }
        }
        created.set(created.get() + 1);
    }
    wrong
}
