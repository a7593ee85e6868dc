//! The API server trusts the webhook with each source of certificates.

use crate::release::{CERTIFICATES, Release, delete, environment, repository};
use e2e::{client, eventually, scenario::Scenario, webhook::NAMESPACE};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

#[testkit::test]
async fn helm_test_and_a_pod_succeed_with_self_signed_certificates() {
    let client = client().await;
    let release = Release::fresh(&client, json!({})).await;
    release.test().await;
    release.runs_app(Scenario::SelfSigned).await;
    let kept = release.secret(CERTIFICATES).await.unwrap();
    assert!(release.ca_bundle().await.unwrap().contains(kept["ca.crt"].trim()));
}

#[testkit::test]
async fn helm_test_and_a_pod_succeed_with_a_provided_certificate() {
    let client = client().await;
    let release = Release::none(&client).await;
    let folder = PathBuf::from(environment("E2E_FOLDER")).join("provided");
    make_certificates(&folder).await;
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    create::<Namespace>(Api::all(client.clone()), namespace).await;
    let data = ["tls.crt", "tls.key"].map(|name| (name, ByteString(read(name))));
    let secret = json!({
        "metadata": {"name": "provided"},
        "type": "kubernetes.io/tls",
        "data": BTreeMap::from(data),
    });
    create::<Secret>(Api::namespaced(client.clone(), NAMESPACE), secret).await;

    let authority = String::from_utf8(read("ca.crt")).unwrap();
    let provided = json!({"secretName": "provided", "caBundle": authority});
    release
        .install(json!({"certificates": {"mode": "provided", "provided": provided}}))
        .await;
    release.test().await;
    release.runs_app(Scenario::ProvidedCertificate).await;
    assert_eq!(release.ca_bundle().await.unwrap().trim(), authority.trim());
    assert!(release.secret(CERTIFICATES).await.unwrap().keys().eq(["path"]));
}

#[testkit::test]
async fn helm_test_and_a_pod_succeed_with_cert_manager() {
    let client = client().await;
    let release = Release::none(&client).await;
    let cert_manager = CertManager::start(&client).await;
    release
        .install(json!({"certificates": {"mode": "cert-manager"}}))
        .await;
    // Helm waits for the Certificate, but not for the injector.
    eventually("the registration contains the authority", async || {
        let kept = release.secret("acr-pull-webhook-tls").await?;
        (release.ca_bundle().await? == kept["ca.crt"]).then_some(())
    })
    .await;
    release.test().await;
    release.runs_app(Scenario::CertManager).await;
    assert!(release.secret(CERTIFICATES).await.unwrap().keys().eq(["path"]));
    release.uninstall().await;
    cert_manager.remove(&client).await;
}

/// The controllers and the CA injector of cert-manager, as a process outside of the cluster.
struct CertManager {
    program: Child,
    kinds: Vec<String>,
}

impl CertManager {
    async fn start(client: &Client) -> Self {
        let folder = PathBuf::from(environment("CERT_MANAGER"));
        let kinds = Api::<CustomResourceDefinition>::all(client.clone());
        let before = names(&kinds).await;
        kubectl(&["apply", "--server-side", "--filename"], &folder).await;
        let mut kinds = names(&kinds).await;
        kinds.retain(|kind| !before.contains(kind));
        kubectl(&["wait", "--for=condition=Established", "--filename"], &folder).await;
        let log = std::fs::File::create(Path::new(&environment("E2E_FOLDER")).join("cert-manager.log"));
        let mut program = Command::new(folder.join("cert-manager"))
            .arg(environment("KUBECONFIG"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(program.stdout.take().unwrap()).lines();
        let line = output.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("ready"), "see cert-manager.log");
        Self { program, kinds }
    }

    async fn remove(mut self, client: &Client) {
        self.program.kill().await.unwrap();
        let kinds = Api::<CustomResourceDefinition>::all(client.clone());
        for kind in self.kinds {
            delete(&kinds, &kind).await;
        }
    }
}

/// Runs kubectl with the CRDs of cert-manager.
async fn kubectl(arguments: &[&str], folder: &Path) {
    let status = Command::new(environment("KUBECTL"))
        .args(arguments)
        .arg(folder.join("crds"))
        .stdout(Stdio::null())
        .status();
    assert!(status.await.unwrap().success());
}

async fn names(kinds: &Api<CustomResourceDefinition>) -> Vec<String> {
    let all = kinds.list(&Default::default()).await.unwrap();
    all.iter().map(ResourceExt::name_any).collect()
}

async fn make_certificates(folder: &Path) {
    let made = Command::new(repository("certs/make-certs.sh"))
        .arg(folder)
        .arg("acr-pull-webhook.acr-pull-webhook.svc")
        .stdout(Stdio::null())
        .status();
    assert!(made.await.unwrap().success());
}

async fn create<K>(api: Api<K>, object: serde_json::Value)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap();
}
