//! Pods that are created while replicas or certificates of the webhook are replaced.

use crate::{eventually, scenario::ScenarioNamespace};
use futures::future::join_all;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;
use std::cell::Cell;
use testkit::{
    objects::{ANNOTATION, from, pod_json},
    turns,
};

/// Each has up to ten turns per second.
const CREATORS: usize = 4;
/// Fewer than are created during any rollout.
pub const MIN_CREATED: usize = 50;

/// Creates Pods while `during` runs, and asserts that all of them are patched. `during` receives the number of created
/// Pods.
pub async fn while_pods_are_created(namespace: &ScenarioNamespace, during: impl AsyncFnOnce(&Cell<usize>)) {
    let (created, ended) = (Cell::new(0), Cell::new(false));
    let creators = join_all((0..CREATORS).map(|n| create(namespace, n, &created, &ended)));
    let during = async {
        during(&created).await;
        ended.set(true);
    };
    let (wrong, ()) = tokio::join!(creators, during);
    let (wrong, created) = (wrong.concat(), created.get());
    assert!(wrong.is_empty(), "{} of {created}: {wrong:#?}", wrong.len());
}

/// Waits until more Pods than `MIN_CREATED` have been created since the call.
pub async fn more_are_created(created: &Cell<usize>) {
    let enough = created.get() + MIN_CREATED;
    eventually("Pods are created", async || {
        (created.get() > enough).then_some(())
    })
    .await;
}

/// Creates and deletes Pods until `ended`; returns the failures.
async fn create(
    namespace: &ScenarioNamespace,
    creator: usize,
    created: &Cell<usize>,
    ended: &Cell<bool>,
) -> Vec<String> {
    let pods = namespace.api::<Pod>();
    let (mut wrong, mut turns) = (Vec::new(), turns());
    for n in 0.. {
        turns.tick().await;
        if ended.get() {
            break;
        }
        let name = format!("app-{creator}-{n}");
        // Each tenth Pod waits for a new token.
        let fresh = n % 10 == 0;
        let generator = if fresh { name.as_str() } else { "contoso" };
        if fresh {
            namespace.create_generator(generator, json!({})).await;
        }
        let mut pod = pod_json(&name, &namespace.scenario.image(), json!({ANNOTATION: generator}));
        // Only the admission matters: a scheduling gate keeps the Pod from the nodes.
        pod["spec"]["schedulingGates"] = json!([{"name": "acr-pull.dev/e2e"}]);
        match namespace.try_create_pod(&from(pod)).await {
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
