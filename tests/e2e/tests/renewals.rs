//! A Pod outlives the tokens of its pull secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use acr_pull_webhook::pull_secret::ACRPullSecretStatus;
use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
    script,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use testkit::objects::{ANNOTATION, from, pod_json};
use tokio::sync::mpsc::{self, UnboundedSender};

const RENEWALS: usize = 10;
/// A token is renewed after 16 to 18 s, so that a busy machine has at least 6 s for the renewal.
const TOKEN_LIFETIME: &str = "24s";

/// A Pod with two images: the test removes the first one, but not the second one, between its pull and the start of its
/// container.
fn two_images(image: &str, once: &str) -> Pod {
    let mut pod = pod_json("app", image, json!({ANNOTATION: "contoso"}));
    let image = format!("{}/{once}", azure::REGISTRY);
    let once = json!({"name": "once", "image": image, "imagePullPolicy": "Always", "args": ["once"]});
    pod["spec"]["containers"].as_array_mut().unwrap().push(once);
    from(pod)
}

/// Sends a message after each renewal, and asserts that each one precedes the expiration.
async fn observe_renewals(
    namespace: &ScenarioNamespace,
    first: ACRPullSecretStatus,
    renewed: UnboundedSender<usize>,
) {
    let mut last = first;
    for n in 0..RENEWALS {
        let next = eventually("the next renewal", async || {
            let status = namespace.only_pull_secret().await.status?;
            (status.last_renewal_time != last.last_renewal_time).then_some(status)
        })
        .await;
        assert!(
            next.last_renewal_time < last.expiration_time,
            "at {:?}, a token was renewed that had expired at {:?}",
            next.last_renewal_time,
            last.expiration_time
        );
        assert_eq!(next.secret_uid, last.secret_uid);
        last = next;
        renewed.send(n).unwrap();
    }
}

/// Removes the image from the node and pulls it with one more container.
async fn pull_again(namespace: &ScenarioNamespace, n: usize) {
    let image = namespace.scenario.image();
    script("remove-image.sh", [image.clone()]).await;
    let name = format!("debug-{n}");
    let debug = json!({"name": name, "image": image, "imagePullPolicy": "Always"});
    let debug = Patch::Strategic(json!({"spec": {"ephemeralContainers": [debug]}}));
    let (pods, params) = (namespace.pods(), PatchParams::default());
    let patched = pods.patch_ephemeral_containers("app", &params, &debug).await;
    patched.unwrap();
    wait_for_container(namespace, &name, is_running).await;
}

#[testkit::test]
async fn a_running_pod_pulls_its_removed_image_after_each_renewal() {
    // Ten renewals take three minutes on an idle machine.
    testkit::allow_more_time(Duration::from_secs(120));
    let client = client().await;
    azure::ready_with_token_lifetime(&client, TOKEN_LIFETIME).await;
    let namespace = Scenario::Renewals.set_up(&client, json!({})).await;
    let once = format!("{}:once", namespace.scenario.repository());
    azure::push_images([once.clone()]).await;
    let pod = two_images(&namespace.scenario.image(), &once);
    namespace.create_pod(&pod).await;
    wait_for_container(&namespace, "app", is_running).await;

    let first = namespace.only_pull_secret().await;
    let (name, status) = (first.metadata.name.unwrap(), first.status.unwrap());
    let uid = namespace.secrets().get(&name).await.unwrap().metadata.uid;
    assert_eq!(status.secret_uid, uid);
    let (renewed, mut renewals) = mpsc::unbounded_channel();
    tokio::join!(observe_renewals(&namespace, status, renewed), async {
        while let Some(n) = renewals.recv().await {
            pull_again(&namespace, n).await;
        }
    });

    wait_for_container(&namespace, "once", |status| status.restart_count > 1).await;
    assert_eq!(namespace.secrets().get(&name).await.unwrap().metadata.uid, uid);
    let mut warnings = namespace.pull_warnings("app").await;
    let restarts = "BackOff: Back-off restarting failed container once in pod ";
    warnings.retain(|warning| !warning.starts_with(restarts));
    assert!(warnings.is_empty(), "{warnings:?}");
}

/// Waits until a container of any kind of the Pod has this status.
async fn wait_for_container(
    namespace: &ScenarioNamespace,
    name: &str,
    wanted: impl Fn(&ContainerStatus) -> bool,
) {
    eventually(&format!("container {name} has the expected status"), async || {
        let PodStatus {
            container_statuses,
            ephemeral_container_statuses,
            ..
        } = namespace.api::<Pod>().get("app").await.unwrap().status?;
        let mut all = container_statuses
            .into_iter()
            .chain(ephemeral_container_statuses)
            .flatten();
        all.find(|status| status.name == name).filter(&wanted).map(drop)
    })
    .await;
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}
