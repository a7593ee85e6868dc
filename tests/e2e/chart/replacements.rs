//! Pods are admitted while certificates and replicas are replaced.

use crate::release::{CERTIFICATES, Release};
use e2e::{
    client, eventually,
    load::{MIN_CREATED, more_are_created, while_pods_are_created},
    scenario::Scenario,
    webhook::{self, evict_one, replaced},
};
use kube::ResourceExt;
use serde_json::json;
use std::collections::BTreeSet;

/// A certificate with a lifetime of 30 s is replaced after 20 s.
#[testkit::test]
async fn all_pods_are_patched_during_certificate_rotations() {
    let rotations: usize = std::env::var("E2E_ROTATIONS").map_or(3, |n| n.parse().unwrap());
    let client = client().await;
    let lifetime = json!({"certificates": {"selfManaged": {"lifetime": "30s"}}});
    let release = Release::fresh(&client, lifetime).await;
    let namespace = Scenario::CertificateRotation.set_up(&client, json!({})).await;
    let authority = async || {
        let kept = release.secret(CERTIFICATES).await;
        kept.expect("the Secret of certificates exists")
            .remove("ca.crt")
            .unwrap()
    };
    while_pods_are_created(&namespace, async |created| {
        // A rotation may come as soon as the load begins, so only those count that have Pods before them.
        for rotation in 1..=rotations {
            more_are_created(created).await;
            let before = authority().await;
            eventually("the certificate authority is replaced", async || {
                (authority().await != before).then_some(())
            })
            .await;
            println!("{} Pods were created until rotation {rotation}", created.get());
        }
        more_are_created(created).await;
    })
    .await;
}

#[testkit::test]
async fn all_pods_are_patched_during_a_helm_upgrade_and_an_eviction() {
    let client = client().await;
    let release = Release::fresh(&client, json!({})).await;
    let namespace = Scenario::ChartUpgrade.set_up(&client, json!({})).await;
    let before = replicas(&client).await;
    while_pods_are_created(&namespace, async |created| {
        release.upgrade(json!({"log": {"level": "debug"}})).await;
        replaced(&client, 2).await;
        let by_upgrade = created.get();
        assert!(by_upgrade > MIN_CREATED);
        assert!(before.is_disjoint(&replicas(&client).await));

        evict_one(&client).await;
        replaced(&client, 2).await;
        println!(
            "{by_upgrade} Pods were created during the upgrade, {} until the end",
            created.get()
        );
    })
    .await;
}

async fn replicas(client: &kube::Client) -> BTreeSet<String> {
    let replicas = webhook::replicas(client).await;
    replicas.iter().map(ResourceExt::name_any).collect()
}
