//! The webhook's own certificates and its secret path: created, published, rotated and repaired under load.

use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};
use testkit::{
    env::TestEnv,
    eventually,
    objects::{pull_secret_names, unnamed_pod},
    speed, turns,
    webhook::{SECRET, Webhook},
};
use x509_cert::{Certificate, der::Decode};

const REGISTRATION: &str = "acr-pull-webhook";
const NOTHING: [String; 0] = [];

pub struct Certificates {
    pub secrets: Api<Secret>,
    pub registrations: Api<MutatingWebhookConfiguration>,
}

impl Certificates {
    pub fn of(env: &TestEnv) -> Self {
        Self {
            secrets: Api::namespaced(env.client.clone(), "acr-pull-webhook"),
            registrations: Api::all(env.client.clone()),
        }
    }

    async fn served(&self) -> Option<ByteString> {
        let secret = self.secrets.get_opt(SECRET).await.unwrap()?;
        secret.data?.remove("tls.crt")
    }

    /// Waits until the certificate is replaced and the rotation is complete.
    async fn wait_until_rotated(&self, before: &Option<ByteString>) {
        eventually(
            "the certificate is replaced and the rotation is complete",
            async || {
                let data = self.secrets.get_opt(SECRET).await.unwrap()?.data?;
                let over = data.keys().eq(["ca.crt", "path", "tls.crt", "tls.key"]);
                (over && data.get("tls.crt") != before.as_ref()).then_some(())
            },
        )
        .await;
    }

    pub async fn bundles(&self) -> Vec<ByteString> {
        let published = self.published().await;
        published.into_iter().map(|(bundle, _)| bundle).collect()
    }

    /// Authority and path of each webhook in the registration.
    pub async fn published(&self) -> Vec<(ByteString, String)> {
        let registration = self.registrations.get(REGISTRATION).await.unwrap();
        let hooks = registration.webhooks.unwrap_or_default().into_iter();
        hooks
            .map(|hook| {
                let config = hook.client_config;
                let url = reqwest::Url::parse(&config.url.unwrap()).unwrap();
                (config.ca_bundle.unwrap_or_default(), url.path().to_owned())
            })
            .collect()
    }

    /// The stored secret paths by their keys.
    pub async fn paths(&self) -> BTreeMap<String, String> {
        let secret = self.secrets.get_opt(SECRET).await.unwrap();
        let data = secret.and_then(|secret| secret.data).unwrap_or_default();
        let paths = data.into_iter().filter(|(key, _)| key.ends_with("path"));
        paths
            .map(|(key, path)| (key, String::from_utf8(path.0).unwrap()))
            .collect()
    }

    pub async fn delete_secret(&self) {
        let params = DeleteParams::default();
        self.secrets.delete(SECRET, &params).await.unwrap();
    }

    pub async fn patch_secret(&self, patch: serde_json::Value) {
        let params = PatchParams::default();
        let patch = Patch::Merge(patch);
        self.secrets.patch(SECRET, &params, &patch).await.unwrap();
    }

    /// Waits until the secret path is replaced and the rotation is complete; returns the new path.
    pub async fn wait_until_replaced(&self, before: &str) -> String {
        eventually(
            "the secret path is replaced and the rotation is complete",
            async || {
                let paths = self.paths().await;
                let path = paths.get("path").filter(|path| *path != before)?;
                let whole = format!("/mutate/{path}");
                let published = self.published().await.iter().all(|(_, path)| *path == whole);
                (paths.len() == 1 && published).then(|| path.clone())
            },
        )
        .await
    }
}

/// Creates Pods one after the other until `stop`, and asserts that all of them are patched.
pub async fn load(env: &TestEnv, stop: &AtomicBool, created: &AtomicUsize) {
    let (pods, mut turns) = (env.team_a.namespace.pods(), turns());
    while !stop.load(Ordering::Relaxed) {
        turns.tick().await;
        let pod = pods.create(&PostParams::default(), &unnamed_pod("contoso")).await;
        assert_eq!(pull_secret_names(&pod.expect("the Pod is admitted")).len(), 1);
        created.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the load has created more than this many Pods.
pub async fn loaded(created: &AtomicUsize, number: usize) {
    eventually("the load has created enough Pods", async || {
        (created.load(Ordering::Relaxed) > number).then_some(())
    })
    .await;
}

/// Calls each replica with the published authority and path until `stop`, and asserts that all calls succeed.
async fn ask(certificates: &Certificates, replicas: [&Webhook; 2], stop: &AtomicBool) {
    let mut turns = turns();
    while !stop.load(Ordering::Relaxed) {
        turns.tick().await;
        let (bundle, path) = certificates.published().await.remove(0);
        let roots = reqwest::Certificate::from_pem_bundle(&bundle.0).unwrap();
        for replica in replicas {
            let client = reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only(roots.clone());
            let reply = client
                .build()
                .unwrap()
                .post(format!("https://{}{path}", replica.address))
                .json(&json!({}))
                .send()
                .await;
            // The body is read, and it is not a review.
            assert_eq!(reply.expect("its certificate is trusted").status(), 400);
        }
    }
}

/// Rotates three times, and repairs a deleted and an invalid Secret.
async fn rotate_and_repair(certificates: &Certificates) {
    for _ in 0..3 {
        let (before, paths) = (certificates.served().await, certificates.paths().await);
        certificates.wait_until_rotated(&before).await;
        assert_ne!(certificates.paths().await, paths, "the path rotates too");
    }
    let before = certificates.served().await;
    certificates.delete_secret().await;
    certificates.wait_until_rotated(&before).await;

    let before = certificates.served().await;
    let key = ByteString(b"nonsense".to_vec());
    let invalid = json!({"data": {"tls.key": key, "ca.crt": null}});
    certificates.patch_secret(invalid).await;
    certificates.wait_until_rotated(&before).await;
}

/// Removes one authority of the registration and replaces the other one, waits for the repair, and asserts that one
/// replica reports who changed the registration.
async fn repair_registration(env: &TestEnv, certificates: &Certificates, replicas: [&Webhook; 2]) {
    let reports = || {
        let lines = replicas
            .map(|replica| replica.log_lines("caBundle or path were changed by another field manager"));
        lines.concat()
    };
    assert_eq!(
        reports(),
        NOTHING,
        "a rotation is not a change by another field manager"
    );
    let foreign = ByteString(env.azure.ca_pem().into());
    let patch = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"},
        {"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": foreign}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
    let registrations = &certificates.registrations;
    let params = PatchParams {
        field_manager: Some("gitops-agent".to_owned()),
        ..PatchParams::default()
    };
    registrations.patch(REGISTRATION, &params, &patch).await.unwrap();
    eventually("the registration is repaired", async || {
        let bundles = certificates.bundles().await;
        let secret = certificates.secrets.get(SECRET).await.unwrap().data.unwrap();
        let ca = String::from_utf8(secret["ca.crt"].0.clone()).unwrap();
        bundles
            .iter()
            .all(|bundle| std::str::from_utf8(&bundle.0).unwrap().contains(&ca))
            .then_some(())
    })
    .await;
    let report = eventually("a replica reports the change", async || reports().pop()).await;
    assert!(report.contains("gitops-agent"), "{report}");
    let [first, second] = replicas;
    let metric = "registration_repairs_total";
    assert_eq!(first.metric(metric).await + second.metric(metric).await, 1);
}

/// Stops the replicas until their certificate has expired, and waits for the next one.
async fn outlast_certificate(certificates: &Certificates, replicas: [&Webhook; 2]) {
    let before = certificates.served().await;
    for replica in replicas {
        replica.signal("STOP").await;
    }
    let expires = expiration(before.as_ref().unwrap());
    eventually("the certificate has expired", async || {
        (jiff::Timestamp::now() > expires).then_some(())
    })
    .await;
    for replica in replicas {
        replica.signal("CONT").await;
    }
    certificates.wait_until_rotated(&before).await;
}

#[testkit::test]
async fn no_pod_is_refused_during_rotations_and_repairs() {
    let lifetime = format!("{}s", speed::seconds(15).as_secs());
    let env = TestEnv::certifying(&lifetime).await;
    let second = env.replica().await;
    let (certificates, replicas) = (Certificates::of(&env), [&env.webhook, &second]);

    let (stop, created) = (AtomicBool::new(false), AtomicUsize::new(0));
    tokio::join!(
        load(&env, &stop, &created),
        load(&env, &stop, &created),
        ask(&certificates, replicas, &stop),
        async {
            rotate_and_repair(&certificates).await;
            loaded(&created, 50).await;
            stop.store(true, Ordering::Relaxed);
        }
    );

    repair_registration(&env, &certificates, replicas).await;
    outlast_certificate(&certificates, replicas).await;
    env.team_a
        .namespace
        .retry_create_pod(&unnamed_pod("contoso"))
        .await;

    // Neither the webhook nor a library logs keys or the path.
    let path = certificates.paths().await.remove("path").unwrap();
    for line in env.webhook.log().iter().chain(&second.log()) {
        assert!(!line.contains("PRIVATE KEY"), "a key was logged");
        assert!(!line.contains(&path), "a path was logged: {line}");
    }
    env.assert_no_secret_was_logged();
}

/// A Deployment is rolled out with other --tls-names.
#[testkit::test]
async fn replicas_with_different_names_share_one_certificate() {
    let env = TestEnv::certifying("100s").await;
    let certificates = Certificates::of(&env);
    let flags = [
        "--tls-names=127.0.0.1,webhook.example",
        "--certificate-lifetime=100s",
        "--leader-election-namespace=acr-pull-webhook",
    ];
    let flags = flags.map(str::to_owned);
    let second = Webhook::start(&env.cluster, &env.azure, &flags).await;
    let (stop, created) = (AtomicBool::new(false), AtomicUsize::new(0));
    tokio::join!(
        load(&env, &stop, &created),
        ask(&certificates, [&env.webhook, &second], &stop),
        async {
            let before = certificates.served().await;
            certificates.wait_until_rotated(&before).await;
            let served = certificates.served().await.unwrap();
            let der = CertificateDer::from_pem_slice(&served.0).unwrap();
            assert!(der.windows(15).any(|bytes| bytes == b"webhook.example"));
            stop.store(true, Ordering::Relaxed);
        }
    );
    for replica in [&env.webhook, &second] {
        let invalid = replica.logged("the stored certificate is not valid");
        assert_eq!(invalid, 0, "one replica refuses the certificate of the other");
    }
    let rotated = |webhook: &Webhook| webhook.logged("next serving certificate and secret path created");
    assert_eq!(rotated(&env.webhook) + rotated(&second), 1);
}

#[testkit::test]
async fn an_existing_secret_of_type_tls_keeps_its_type() {
    let env = TestEnv::certifying("100s").await;
    let certificates = Certificates::of(&env);
    let nobody = ByteString(b"nonsense".to_vec());
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": SECRET}, "type": "kubernetes.io/tls", "data": {"tls.crt": nobody, "tls.key": nobody},
    }))
    .unwrap();
    let before = certificates.served().await;
    env.webhook.signal("STOP").await;
    certificates.delete_secret().await;
    let created = certificates.secrets.create(&PostParams::default(), &secret).await;
    created.unwrap();
    env.webhook.signal("CONT").await;
    let second = env.replica().await;
    certificates.wait_until_rotated(&before).await;
    let type_ = certificates.secrets.get(SECRET).await.unwrap().type_;
    assert_eq!(type_.as_deref(), Some("kubernetes.io/tls"));
    assert_eq!(second.admin_get("/readyz").await.0, 200);
}

/// When a certificate in PEM expires.
fn expiration(pem: &ByteString) -> jiff::Timestamp {
    let der = CertificateDer::from_pem_slice(&pem.0).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    let ends = certificate.tbs_certificate().validity().not_after;
    jiff::Timestamp::UNIX_EPOCH + ends.to_unix_duration()
}
