//! The running webhook itself. Cargo runs this after `pulls`, by name, so that there is
//! something to look back on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use e2e::{azure, client};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use serde_json::Value;

const NAMESPACE: &str = "acr-pull-webhook";
const MIB: u64 = 1024 * 1024;

async fn replicas(client: &Client) -> Vec<Pod> {
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let selector = ListParams::default().labels("app.kubernetes.io/name=acr-pull-webhook");
    let running = |pod: &Pod| pod.metadata.deletion_timestamp.is_none();
    let replicas: Vec<_> = pods
        .list(&selector)
        .await
        .unwrap()
        .items
        .into_iter()
        .filter(running)
        .collect();
    assert_eq!(replicas.len(), 2);
    replicas
}

/// `make e2e` deploys with the most verbose level, so everything that could be said was said.
#[tokio::test]
async fn no_token_assertion_or_docker_config_is_in_any_log_line() {
    let client = client().await;
    let credentials = azure::credentials(&client).await;
    assert!(!credentials.issued.is_empty() && !credentials.presented.is_empty());
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let mut issued_here = 0;
    for pod in replicas(&client).await {
        let log = pods.logs(&pod.name_any(), &LogParams::default()).await.unwrap();
        assert!(
            log.lines().any(|l| l.contains("\"message\":\"serving\"")),
            "the log is whole, from its beginning"
        );
        assert!(
            log.contains("\"level\":\"TRACE\""),
            "the log is at its most verbose: deploy by `make e2e`"
        );
        issued_here += log.matches("\"message\":\"pull secret issued\"").count();
        for line in log.lines() {
            for secret in credentials.issued.iter().chain(&credentials.presented) {
                // The signature is enough to recognise a token by.
                let tail = &secret[secret.len().saturating_sub(24)..];
                assert!(
                    !line.contains(tail),
                    "a secret was logged: {}",
                    line.replace(tail, "[…]")
                );
            }
            assert!(
                !line.contains("\"auths\"") && !line.contains("\\\"auths\\\""),
                "a docker config was logged"
            );
        }
    }
    assert!(issued_here > 0, "the logs tell of pull secrets");
}

#[tokio::test]
async fn a_replica_needs_less_than_16_mib() {
    let client = client().await;
    for pod in replicas(&client).await {
        let node = pod.spec.as_ref().unwrap().node_name.clone().unwrap();
        let request = http::Request::get(format!("/api/v1/nodes/{node}/proxy/stats/summary"))
            .body(Vec::new())
            .unwrap();
        let summary: Value = client.request(request).await.unwrap();
        let stats = summary["pods"]
            .as_array()
            .unwrap()
            .iter()
            .find(|p| p["podRef"]["name"] == pod.name_any())
            .unwrap();
        let memory = &stats["containers"][0]["memory"];
        let bytes = memory["rssBytes"].as_u64().unwrap();
        println!(
            "{}: {:.1} MiB resident",
            pod.name_any(),
            bytes as f64 / MIB as f64
        );
        assert!((1..16 * MIB).contains(&bytes), "{memory}");
    }
}
