//! A Pod outlives the tokens of its pull secret.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{
    azure, client, eventually,
    scenario::{Scenario, ScenarioNamespace},
    script,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use kube::api::Patch;
use serde_json::json;
use testkit::objects::{ANNOTATION, from, pod_json};
use tokio::sync::mpsc;

const RENEWALS: usize = 10;

#[testkit::test]
async fn a_running_pod_pulls_its_removed_image_after_each_renewal() {
    let client = client().await;
    azure::ready_with_token_lifetime(&client, "12s").await;
    let namespace = Scenario::Renewals.set_up(&client, json!({})).await;
    let image = namespace.scenario.image();
    // The test does not remove this image between the pull and the start of its container.
    let once = format!("{}:once", namespace.scenario.repository());
    azure::push_images([once.clone()]).await;
    let mut pod = pod_json("app", &image, json!({ANNOTATION: "contoso"}));
    let once = json!({"name": "once", "image": format!("{}/{once}", azure::REGISTRY), "imagePullPolicy": "Always", "args": ["once"]});
    pod["spec"]["containers"].as_array_mut().unwrap().push(once);
    namespace.create_pod(&from(pod)).await;
    container(&namespace, "app", is_running).await;

    let first = namespace.only_pull_secret().await;
    let name = first.metadata.name.unwrap();
    let uid = namespace.secrets().get(&name).await.unwrap().metadata.uid;
    let (renewed, mut renewals) = mpsc::unbounded_channel();
    let see = async {
        let renewed = renewed;
        let mut last = first.status.unwrap();
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
            assert_eq!(next.secret_uid, uid);
            last = next;
            renewed.send(n).unwrap();
        }
    };
    let pull = async {
        while let Some(n) = renewals.recv().await {
            script("remove-image.sh", [image.clone()]).await;
            let name = format!("debug-{n}");
            let debug = json!({"name": name, "image": image, "imagePullPolicy": "Always"});
            let debug = json!({"spec": {"ephemeralContainers": [debug]}});
            namespace
                .api::<Pod>()
                .patch_ephemeral_containers("app", &Default::default(), &Patch::Strategic(debug))
                .await
                .unwrap();
            container(&namespace, &name, is_running).await;
        }
    };
    tokio::join!(see, pull);

    container(&namespace, "once", |status| status.restart_count > 1).await;
    assert_eq!(namespace.secrets().get(&name).await.unwrap().metadata.uid, uid);
    let mut troubles = namespace.pull_warnings("app").await;
    troubles
        .retain(|trouble| !trouble.starts_with("BackOff: Back-off restarting failed container once in pod "));
    assert!(troubles.is_empty(), "{troubles:?}");
}

/// Waits until a container of any kind of the Pod has this status.
async fn container(namespace: &ScenarioNamespace, name: &str, wanted: impl Fn(&ContainerStatus) -> bool) {
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
