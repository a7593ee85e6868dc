//! The secret path of webhooks whose certificates are in files.

use crate::certificates::{Certificates, load, loaded};
use kube::api::DeleteParams;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use testkit::{
    env::TestEnv,
    eventually,
    objects::unnamed_pod,
    turns,
    webhook::{SECRET, Webhook},
};

/// The status of a request without a review to a path of a replica: 400 if the replica reads the body, otherwise 404.
async fn call(webhook: &Webhook, path: &str) -> u16 {
    let url = format!("https://{}/mutate/{path}", webhook.address);
    let reply = webhook.client().post(url).json(&json!({})).send().await;
    reply.unwrap().status().as_u16()
}

/// Registers a wrong path, and waits until the webhook has published the secret path.
async fn publish(env: &TestEnv, certificates: &Certificates) -> String {
    let (label, params) = (env.label(), DeleteParams::default());
    certificates.registrations.delete(label, &params).await.unwrap();
    let wrong = format!("https://{}/mutate", env.webhook.address);
    let authority = Some(env.webhook.ca_pem.as_str());
    env.register_at(None, label, &wrong, authority).await;
    certificates.wait_until_replaced("").await
}

/// Deletes the Secret and writes invalid paths; returns the first path after the deletion.
async fn replace_path(certificates: &Certificates, first: &str) -> String {
    certificates.delete_secret().await;
    let next = certificates.wait_until_replaced(first).await;
    for invalid in [
        json!({"stringData": {"path": "nonsense"}}),
        json!({"stringData": {"path": "X".repeat(40)}}),
        json!({"data": {"path": null}}),
    ] {
        let before = certificates.paths().await["path"].clone();
        certificates.patch_secret(invalid).await;
        certificates.wait_until_replaced(&before).await;
    }
    next
}

/// Calls each replica at the published path until `stop`.
async fn call_published(certificates: &Certificates, replicas: [&Webhook; 2], stop: &AtomicBool) {
    let mut turns = turns();
    while !stop.load(Ordering::Relaxed) {
        turns.tick().await;
        let (_, path) = certificates.published().await.remove(0);
        let path = path.strip_prefix("/mutate/").unwrap();
        for replica in replicas {
            assert_eq!(call(replica, path).await, 400);
        }
    }
}

#[testkit::test]
async fn with_certificate_files_only_the_secret_path_is_managed() {
    // A change of the path is delayed by a tenth of this lifetime, although no certificate is created.
    let env = TestEnv::leading(&["--certificate-lifetime=30s"], |_| ()).await;
    let second = env.replica().await;
    let (certificates, replicas) = (Certificates::of(&env), [&env.webhook, &second]);
    let first = publish(&env, &certificates).await;
    assert!(replicas.iter().all(|replica| replica.url().ends_with(&first)));
    env.team_a
        .namespace
        .retry_create_pod(&unnamed_pod("contoso"))
        .await;

    let (stop, created) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ((), (), next) = tokio::join!(
        load(&env, &stop, &created),
        call_published(&certificates, replicas, &stop),
        async {
            let next = replace_path(&certificates, &first).await;
            loaded(&created, 20).await;
            stop.store(true, Ordering::Relaxed);
            next
        }
    );
    for replica in replicas {
        eventually("the deleted path is no longer served", async || {
            (call(replica, &first).await == 404).then_some(())
        })
        .await;
    }

    let data = certificates.secrets.get(SECRET).await.unwrap().data.unwrap();
    assert!(data.keys().eq(["path"]), "no certificate is created");
    let authority = env.webhook.ca_pem.as_bytes();
    for bundle in certificates.bundles().await {
        assert_eq!(bundle.0, authority, "the authority is unchanged");
    }
    for line in env.webhook.log().iter().chain(&second.log()) {
        assert!(
            !line.contains(&first) && !line.contains(&next),
            "a path was logged: {line}"
        );
    }
}
