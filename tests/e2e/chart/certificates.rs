//! Every way to certificates ends in a webhook that the API server trusts.

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
async fn helm_test_passes_and_a_pod_runs_with_the_certificate_that_the_webhook_makes() {
    let client = client().await;
    let release = Release::fresh(&client, json!({})).await;
    release.test().await;
    release.serves(Scenario::SelfSigned).await;
    let kept = release.secret(CERTIFICATES).await.unwrap();
    assert!(release.ca_bundle().await.unwrap().contains(kept["ca.crt"].trim()));
}

#[testkit::test]
async fn helm_test_passes_and_a_pod_runs_with_a_certificate_that_is_provided() {
    let client = client().await;
    let release = Release::none(&client).await;
    let folder = PathBuf::from(environment("E2E_FOLDER")).join("provided");
    make_certificates(&folder).await;
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let namespace = json!({"metadata": {"name": NAMESPACE}});
    create::<Namespace>(Api::all(client.clone()), namespace).await;
    let data = ["tls.crt", "tls.key"].map(|name| (name, ByteString(read(name))));
    let secret = json!({
        "metadata": {"name": "ours"},
        "type": "kubernetes.io/tls",
        "data": BTreeMap::from(data),
    });
    create::<Secret>(Api::namespaced(client.clone(), NAMESPACE), secret).await;

    let authority = String::from_utf8(read("ca.crt")).unwrap();
    let provided = json!({"secretName": "ours", "caBundle": authority});
    release
        .install(json!({"certificates": {"mode": "provided", "provided": provided}}))
        .await;
    release.test().await;
    release.serves(Scenario::ProvidedCertificate).await;
    assert_eq!(release.ca_bundle().await.unwrap().trim(), authority.trim());
    assert!(release.secret(CERTIFICATES).await.unwrap().keys().eq(["path"]));
}

#[testkit::test]
async fn helm_test_passes_and_a_pod_runs_with_a_certificate_of_cert_manager() {
    let client = client().await;
    let release = Release::none(&client).await;
    let cert_manager = CertManager::start(&client).await;
    release
        .install(json!({"certificates": {"mode": "cert-manager"}}))
        .await;
    // Helm waits for the Certificate, and knows nothing of the injector.
    eventually("the API server is told of the authority", async || {
        let kept = release.secret("acr-pull-webhook-tls").await?;
        (release.ca_bundle().await? == kept["ca.crt"]).then_some(())
    })
    .await;
    release.test().await;
    release.serves(Scenario::CertManager).await;
    assert!(release.secret(CERTIFICATES).await.unwrap().keys().eq(["path"]));
    release.uninstall().await;
    cert_manager.remove(&client).await;
}

/// cert-manager's controllers and CA injector, beside the cluster.
struct CertManager {
    program: Child,
    kinds: Vec<String>,
}

impl CertManager {
    async fn start(client: &Client) -> Self {
        let folder = PathBuf::from(environment("CERT_MANAGER"));
        let kinds = Api::<CustomResourceDefinition>::all(client.clone());
        let before = names(&kinds).await;
        let applied = Command::new(environment("KUBECTL"))
            .args(["apply", "--server-side", "--filename"])
            .arg(folder.join("crds"))
            .stdout(Stdio::null())
            .status();
        assert!(applied.await.unwrap().success());
        let mut kinds = names(&kinds).await;
        kinds.retain(|kind| !before.contains(kind));
        let established = Command::new(environment("KUBECTL"))
            .args(["wait", "--for=condition=Established", "--filename"])
            .arg(folder.join("crds"))
            .stdout(Stdio::null())
            .status();
        assert!(established.await.unwrap().success());
        let log = std::fs::File::create(Path::new(&environment("E2E_FOLDER")).join("cert-manager.log"));
        let mut program = Command::new(folder.join("cert-manager"))
            .arg(environment("KUBECONFIG"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
        let line = said.next_line().await.unwrap();
        assert_eq!(line.as_deref(), Some("ready"), "cert-manager.log tells more");
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
