//! The running webhook. Cargo runs this test program after `pulls`, by its name: the log contains the work of those
//! tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aho_corasick::AhoCorasick;
use e2e::{
    azure, client, eventually,
    webhook::{self, NAMESPACE},
};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{Node, Pod},
    events::v1::Event,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use serde_json::json;

const MIB: f64 = 1024.0 * 1024.0;

async fn replicas(client: &Client) -> Vec<Pod> {
    let mut replicas = webhook::replicas(client).await;
    replicas.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    assert_eq!(replicas.len(), 2);
    replicas
}

/// `make e2e` deploys with the most verbose log level.
#[testkit::test]
async fn the_log_contains_no_token_assertion_or_docker_config() {
    let client = client().await;
    let credentials = azure::credentials(&client).await;
    assert!(!credentials.issued.is_empty() && !credentials.presented.is_empty());
    let traces = credentials.traces();
    let hidden = vec!["[…]"; traces.len()];
    // There are thousands of credentials, and the logs are long.
    let traces = AhoCorasick::new(&traces).unwrap();
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let mut issued_here = 0;
    for pod in replicas(&client).await {
        let log = pods.logs(&pod.name_any(), &LogParams::default()).await.unwrap();
        assert!(
            log.lines().any(|l| l.contains("\"message\":\"serving\"")),
            "the log is complete"
        );
        assert!(
            log.contains("\"level\":\"TRACE\""),
            "the log level is the most verbose one: deploy by `make e2e`"
        );
        issued_here += log.matches("\"message\":\"pull secret issued\"").count();
        for line in log.lines() {
            assert!(
                !traces.is_match(line),
                "a secret was logged: {}",
                traces.replace_all(line, &hidden)
            );
            assert!(
                !line.contains("\"auths\"") && !line.contains("\\\"auths\\\""),
                "a docker config was logged"
            );
        }
    }
    assert!(issued_here > 0, "the logs contain issued pull secrets");
}

/// The value that `kubectl top pod --containers` shows.
#[testkit::test]
async fn a_replica_uses_less_than_16_mib() {
    let client = client().await;
    for pod in replicas(&client).await {
        let (name, node) = (
            pod.name_any(),
            pod.spec.as_ref().unwrap().node_name.clone().unwrap(),
        );
        let bytes = eventually("the kubelet has measured the container", async || {
            let request =
                http::Request::get(format!("/api/v1/nodes/{node}/proxy/metrics/resource")).body(Vec::new());
            let metrics = client.request_text(request.unwrap()).await.unwrap();
            let line = metrics.lines().find(|line| {
                line.starts_with("container_memory_working_set_bytes")
                    && line.contains(&format!("pod=\"{name}\""))
            })?;
            line.split_whitespace().nth(1)?.parse::<f64>().ok()
        })
        .await;
        println!("{name}: {:.1} MiB", bytes / MIB);
        assert!(bytes > 0.0 && bytes < 16.0 * MIB, "{bytes} bytes");
    }
}

#[testkit::test]
async fn the_image_is_smaller_than_14_mb() {
    let client = client().await;
    let image = replicas(&client).await[0].spec.as_ref().unwrap().containers[0]
        .image
        .clone()
        .unwrap();
    let nodes = Api::<Node>::all(client.clone());
    let bytes = eventually("a node reports the size of the image", async || {
        let images = nodes
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .filter_map(|n| n.status?.images);
        let ours = images
            .flatten()
            .find(|i| i.names.iter().flatten().any(|name| name.ends_with(&image)));
        ours.and_then(|i| i.size_bytes)
    })
    .await;
    println!("{image}: {:.1} MB", bytes as f64 / 1e6);
    assert!((1..14_000_000).contains(&bytes), "{bytes} bytes");
}

#[testkit::test]
async fn a_field_manager_that_overwrites_the_registration_is_named_in_an_event() {
    let client = client().await;
    let registrations = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let bundles = async || {
        let registration = registrations.get("acr-pull-webhook").await.unwrap();
        let entries = registration.webhooks.unwrap().into_iter();
        entries
            .map(|entry| entry.client_config.ca_bundle)
            .collect::<Vec<_>>()
    };
    let published = bundles().await;
    // The API server trusts a bundle that contains each certificate twice, so Pods are created in the meantime.
    let mut twice = published[0].clone().unwrap();
    twice.0.extend_from_within(..);
    let replace = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": twice}]);
    let replace = Patch::Json::<()>(serde_json::from_value(replace).unwrap());
    let params = PatchParams {
        field_manager: Some("gitops-agent".to_owned()),
        ..PatchParams::default()
    };
    registrations
        .patch("acr-pull-webhook", &params, &replace)
        .await
        .unwrap();
    eventually("the registration is repaired", async || {
        (bundles().await == published).then_some(())
    })
    .await;
    let events = Api::<Event>::namespaced(client.clone(), NAMESPACE);
    let event = eventually("an Event reports the change", async || {
        let events = events.list(&ListParams::default()).await.unwrap();
        events
            .items
            .into_iter()
            .find(|event| event.reason.as_deref() == Some("RegistrationOverwritten"))
    })
    .await;
    let note = event.note.unwrap();
    let author = "were changed by field manager gitops-agent,";
    assert!(note.contains(author), "{note}");
    let about = event.regarding.unwrap().name.unwrap();
    assert!(
        replicas(&client).await.iter().any(|pod| pod.name_any() == about),
        "{about} is a Pod of the webhook"
    );
}
