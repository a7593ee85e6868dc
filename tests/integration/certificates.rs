//! The webhook's own certificates: made, published, rotated and mended under load.

use super::{
    site::{Site, eventually, pull_secret_names, unnamed},
    webhook::Webhook,
};
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
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use x509_cert::{Certificate, der::Decode};

const SECRET: &str = "acr-pull-webhook-certificates";
const REGISTRATION: &str = "acr-pull-webhook";

struct Certificates {
    secrets: Api<Secret>,
    registrations: Api<MutatingWebhookConfiguration>,
}

// === impl Certificates ===

impl Certificates {
    fn of(site: &Site) -> Self {
        Self {
            secrets: Api::namespaced(site.client.clone(), "acr-pull-webhook"),
            registrations: Api::all(site.client.clone()),
        }
    }

    async fn served(&self) -> Option<ByteString> {
        let secret = self.secrets.get_opt(SECRET).await.unwrap()?;
        secret.data?.remove("tls.crt")
    }

    /// Waits until another certificate is served, and the rotation is over.
    async fn is_rotated(&self, before: &Option<ByteString>) {
        eventually(
            "another certificate is served, and nothing else is kept",
            async || {
                let data = self.secrets.get_opt(SECRET).await.unwrap()?.data?;
                let over = data.keys().eq(["ca.crt", "tls.crt", "tls.key"]);
                (over && data.get("tls.crt") != before.as_ref()).then_some(())
            },
        )
        .await;
    }

    async fn bundles(&self) -> Vec<ByteString> {
        let registration = self.registrations.get(REGISTRATION).await.unwrap();
        let hooks = registration.webhooks.unwrap_or_default();
        hooks
            .into_iter()
            .map(|hook| hook.client_config.ca_bundle.unwrap_or_default())
            .collect()
    }
}

/// Pods, one after the other, until it is told to stop. None may be refused, and none left as it is.
async fn load(site: &Site, stop: &AtomicBool, made: &AtomicUsize) {
    let pods = site.pods(&site.a.namespace);
    while !stop.load(Ordering::Relaxed) {
        let pod = pods.create(&PostParams::default(), &unnamed("contoso")).await;
        assert_eq!(pull_secret_names(&pod.expect("the Pod is admitted")).len(), 1);
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Each replica, asked as an API server would that trusts what is published: always with success.
async fn ask(certificates: &Certificates, replicas: [&Webhook; 2], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let bundle = certificates.bundles().await.remove(0);
        let roots = reqwest::Certificate::from_pem_bundle(&bundle.0).unwrap();
        for replica in replicas {
            let client = reqwest::Client::builder()
                .no_proxy()
                .tls_certs_only(roots.clone());
            let reply = client
                .build()
                .unwrap()
                .post(replica.url())
                .json(&json!({}))
                .send()
                .await;
            reply.expect("its certificate is trusted");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_made_rotated_and_mended_and_no_pod_is_refused() {
    let site = Site::certifying("15s").await;
    let second = site.replica().await;
    let certificates = Certificates::of(&site);

    let (stop, made) = (AtomicBool::new(false), AtomicUsize::new(0));
    tokio::join!(
        load(&site, &stop, &made),
        load(&site, &stop, &made),
        ask(&certificates, [&site.webhook, &second], &stop),
        async {
            for _ in 0..3 {
                let before = certificates.served().await;
                certificates.is_rotated(&before).await;
            }
            let before = certificates.served().await;
            certificates
                .secrets
                .delete(SECRET, &DeleteParams::default())
                .await
                .unwrap();
            certificates.is_rotated(&before).await;

            let before = certificates.served().await;
            let spoilt =
                Patch::Merge(json!({"data": {"tls.key": ByteString(b"nonsense".to_vec()), "ca.crt": null}}));
            certificates
                .secrets
                .patch(SECRET, &PatchParams::default(), &spoilt)
                .await
                .unwrap();
            certificates.is_rotated(&before).await;
            stop.store(true, Ordering::Relaxed);
        }
    );
    let made = made.into_inner();
    assert!(made > 50, "{made} Pods were created");

    let nothing = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"},
        {"op": "replace", "path": "/webhooks/1/clientConfig/caBundle", "value": ByteString(site.emulator.ca_pem().into())}]);
    let nothing = Patch::Json::<()>(serde_json::from_value(nothing).unwrap());
    certificates
        .registrations
        .patch(REGISTRATION, &PatchParams::default(), &nothing)
        .await
        .unwrap();
    eventually("somebody else's edit is mended", async || {
        let bundles = certificates.bundles().await;
        let secret = certificates.secrets.get(SECRET).await.unwrap().data.unwrap();
        let ca = String::from_utf8(secret["ca.crt"].0.clone()).unwrap();
        bundles
            .iter()
            .all(|bundle| std::str::from_utf8(&bundle.0).unwrap().contains(&ca))
            .then_some(())
    })
    .await;

    let before = certificates.served().await;
    for replica in [&site.webhook, &second] {
        replica.signal("STOP").await;
    }
    let (_, ends) = (before.as_ref(), x509_ends(before.as_ref().unwrap()));
    eventually("the certificate has ended", async || {
        (jiff::Timestamp::now() > ends).then_some(())
    })
    .await;
    for replica in [&site.webhook, &second] {
        replica.signal("CONT").await;
    }
    certificates.is_rotated(&before).await;
    eventually("Pods are admitted again", async || {
        site.pods(&site.a.namespace)
            .create(&PostParams::default(), &unnamed("contoso"))
            .await
            .ok()
    })
    .await;

    // Neither by our own words nor by a library's.
    for line in site.webhook.log().iter().chain(&second.log()) {
        assert!(!line.contains("PRIVATE KEY"), "a key was logged");
    }
    site.assert_no_secret_was_logged();
}

/// When a certificate in PEM ends.
fn x509_ends(pem: &ByteString) -> jiff::Timestamp {
    let der = CertificateDer::from_pem_slice(&pem.0).unwrap();
    let certificate = Certificate::from_der(&der).unwrap();
    let ends = certificate.tbs_certificate().validity().not_after;
    jiff::Timestamp::UNIX_EPOCH + ends.to_unix_duration()
}
