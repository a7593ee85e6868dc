//! The release: the chart, installed by the program `helm`.

use e2e::{
    eventually,
    scenario::{Scenario, ScenarioNamespace},
    webhook::NAMESPACE,
};
use k8s_openapi::{
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Namespace, Pod, Secret},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::Stdio};
use testkit::{
    namespace::TestNamespace,
    objects::{unnamed_pod, with_account},
    repository::root,
};
use tokio::{io::AsyncWriteExt, process::Command};

/// The Secret of the certificates that the webhook makes.
pub const CERTIFICATES: &str = "acr-pull-webhook-certificates";
/// The Pod of `helm test`, and its rights.
pub const TEST: &str = "acr-pull-webhook-test";
const NAME: &str = "acr-pull-webhook";

pub struct Release {
    pub client: Client,
}

impl Release {
    /// Removes an installed release with its namespace and its CRDs.
    pub async fn none(client: &Client) -> Self {
        let release = Self {
            client: client.clone(),
        };
        release
            .helm(&["uninstall", NAME, "--ignore-not-found"], None)
            .await;
        // The replicas of another test have no requests left.
        let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
        let at_once = DeleteParams::default().grace_period(1);
        pods.delete_collection(&at_once, &ListParams::default())
            .await
            .unwrap();
        release.delete_namespace().await;
        release.delete_kinds().await;
        release
    }

    /// Installs a new release with these values and those of this cluster.
    pub async fn fresh(client: &Client, values: Value) -> Self {
        let release = Self::none(client).await;
        release.install(values).await;
        release
    }

    pub async fn install(&self, values: Value) {
        let chart = chart();
        self.helm(
            &["install", NAME, &chart, "--create-namespace", "--wait"],
            Some(values),
        )
        .await;
        self.wait_until_called().await;
    }

    /// Waits until the API server reaches the webhook: kube-proxy routes a new Service a second after its Pods are
    /// ready.
    async fn wait_until_called(&self) {
        let namespace = TestNamespace::existing(&self.client, "default");
        let pod = with_account(unnamed_pod("no-such-generator"), "default");
        eventually("the webhook refuses a Pod without a generator", async || {
            let refusal = namespace.dry_run_pod(&pod).await.err()?;
            refusal
                .to_string()
                .contains("\"pods.acr-pull.dev\" denied the request")
                .then_some(())
        })
        .await;
    }

    /// Upgrades the release by the command in docs/upgrade.md.
    pub async fn upgrade(&self, values: Value) {
        let chart = chart();
        self.helm(
            &["upgrade", NAME, &chart, "--reset-then-reuse-values", "--wait"],
            Some(values),
        )
        .await;
    }

    pub async fn test(&self) {
        self.helm(&["test", NAME], None).await;
    }

    /// Runs the test, which must fail, and returns the log of its Pod.
    pub async fn failed_test(&self) -> String {
        let tested = self.try_helm(&["test", NAME], None).await;
        assert!(tested.is_err(), "helm test passed");
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        pods.logs(TEST, &LogParams::default()).await.unwrap()
    }

    pub async fn uninstall(&self) {
        self.helm(&["uninstall", NAME, "--wait"], None).await;
    }

    pub async fn delete_namespace(&self) {
        delete(&Api::<Namespace>::all(self.client.clone()), NAMESPACE).await;
    }

    /// Deletes the CRDs that belong to the chart.
    pub async fn delete_kinds(&self) {
        let kinds = Api::<CustomResourceDefinition>::all(self.client.clone());
        let ours = ListParams::default().labels("app.kubernetes.io/part-of=acr-pull-webhook");
        for kind in kinds.list(&ours).await.unwrap() {
            delete(&kinds, &kind.name_any()).await;
        }
    }

    /// The authority in the registration.
    pub async fn ca_bundle(&self) -> Option<String> {
        let registrations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let hooks = registrations.get(NAME).await.unwrap().webhooks.unwrap();
        let bundles: Vec<_> = hooks.into_iter().map(|h| h.client_config.ca_bundle).collect();
        assert!(bundles.iter().all(|bundle| *bundle == bundles[0]));
        bundles[0]
            .clone()
            .map(|bundle| String::from_utf8(bundle.0).unwrap())
    }

    /// The text of a Secret in the release's namespace.
    pub async fn secret(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), NAMESPACE);
        let data = secrets.get_opt(name).await.unwrap()?.data?.into_iter();
        Some(
            data.map(|(key, value)| (key, String::from_utf8(value.0).unwrap()))
                .collect(),
        )
    }

    /// Runs an annotated Pod with a private image.
    pub async fn runs_app(&self, scenario: Scenario) -> ScenarioNamespace {
        let namespace = scenario.set_up(&self.client, json!({})).await;
        let created = namespace.try_create_app("app", Some("contoso")).await;
        self.assert_patched(created).await;
        namespace.wait_until_running("app").await;
        namespace
    }

    /// Asserts that a Pod was admitted with a patch; otherwise shows the answer and the log of the webhook.
    pub async fn assert_patched(&self, created: kube::Result<Pod>) {
        match created {
            Ok(pod) if is_patched(&pod) => {}
            Ok(pod) => panic!(
                "{} was admitted without a patch\n{}",
                pod.name_any(),
                self.logs().await
            ),
            Err(error) => panic!("{error}\n{}", self.logs().await),
        }
    }

    async fn helm(&self, arguments: &[&str], values: Option<Value>) {
        if let Err(output) = self.try_helm(arguments, values).await {
            panic!("helm {}: {output}{}", arguments.join(" "), self.logs().await);
        }
    }

    async fn try_helm(&self, arguments: &[&str], values: Option<Value>) -> Result<(), String> {
        let mut command = Command::new(environment("HELM"));
        command
            .args(arguments)
            .args(["--namespace", NAMESPACE, "--timeout", "3m"]);
        if values.is_some() {
            command.args(["--values", &environment("CHART_VALUES"), "--values", "-"]);
        }
        let mut helm = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = helm.stdin.take().unwrap();
        stdin
            .write_all(values.unwrap_or_default().to_string().as_bytes())
            .await
            .unwrap();
        drop(stdin);
        let output = helm.wait_with_output().await.unwrap();
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The last log lines of each Pod of the release.
    async fn logs(&self) -> String {
        let pods = Api::<Pod>::namespaced(self.client.clone(), NAMESPACE);
        let last = LogParams {
            tail_lines: Some(15),
            ..Default::default()
        };
        let mut all = String::new();
        for pod in pods.list(&Default::default()).await.unwrap() {
            let log = pods.logs(&pod.name_any(), &last).await;
            all += &format!("{}: {}\n", pod.name_any(), log.unwrap_or_else(|e| e.to_string()));
        }
        all
    }
}

/// Whether the webhook has patched the Pod.
pub fn is_patched(pod: &Pod) -> bool {
    let secrets = pod.spec.as_ref().unwrap().image_pull_secrets.as_deref();
    secrets.is_some_and(|secrets| secrets.iter().any(|secret| secret.name.starts_with("acr-pull-")))
}

pub fn environment(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests by `make e2e-helm`"))
}

pub fn chart() -> String {
    repository("deploy/chart")
}

/// The path of a file in this repository.
pub fn repository(path: &str) -> String {
    root().join(path).to_str().unwrap().to_owned()
}

/// Deletes an object if it exists, and waits until it is gone.
pub async fn delete<K>(api: &Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return,
        other => drop(other.unwrap()),
    }
    eventually(&format!("{name} is gone"), async || {
        api.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}
