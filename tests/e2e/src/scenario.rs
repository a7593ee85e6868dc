//! Scenarios: each is a namespace with a service account `app`, an application in Azure and one private image. Each
//! test has scenarios of its own.

use crate::{
    azure::{self, REGISTRY},
    eventually,
};
use acr_pull_webhook::pull_secret::ACRPullSecret;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};
use std::ops::Deref;
use testkit::{
    namespace::TestNamespace,
    objects::{ANNOTATION, CLIENT_ID, TENANT_ID, from, pod_json},
};

macro_rules! scenarios {
    ($($scenario:ident = $name:literal,)*) => {
        /// A scenario. Azure knows all scenarios before the first test begins.
        #[derive(Clone, Copy)]
        pub enum Scenario {
            $($scenario,)*
        }

        impl Scenario {
            pub const ALL: &[Self] = &[$(Self::$scenario,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$scenario => $name,)*
                }
            }
        }
    };
}

scenarios! {
    Annotation = "annotation",
    FirstIdentity = "first-identity",
    SecondIdentity = "second-identity",
    Scope = "scope",
    ContainerKinds = "container-kinds",
    Deletion = "deletion",
    FirstOfClusterGenerator = "first-of-cluster-generator",
    SecondOfClusterGenerator = "second-of-cluster-generator",
    // `run.sh` permits managed identities in the namespace of this scenario.
    ManagedIdentity = "managed-identity",
    NoManagedIdentity = "no-managed-identity",
    DefaultGenerator = "default-generator",
    Repair = "repair",
    ReleaseRepair = "release-repair",
    Outage = "outage",
    OutageFromTheStart = "outage-from-the-start",
    Renewals = "renewals",
    Rollout = "rollout",
    Complaints = "complaints",
    Fresh0 = "fresh-0",
    Fresh1 = "fresh-1",
    Fresh2 = "fresh-2",
    Fresh3 = "fresh-3",
    Fresh4 = "fresh-4",
    Fresh5 = "fresh-5",
    Fresh6 = "fresh-6",
    Fresh7 = "fresh-7",
    Fresh8 = "fresh-8",
    Fresh9 = "fresh-9",
    SelfSigned = "self-signed",
    ProvidedCertificate = "provided-certificate",
    CertManager = "cert-manager",
    CertificateRotation = "certificate-rotation",
    ChartUpgrade = "chart-upgrade",
    NoReplicas = "no-replicas",
    UninstallWithCrds = "uninstall-with-crds",
    UninstallKeepingCrds = "uninstall-keeping-crds",
}

impl Scenario {
    /// Ten namespaces that are used at the same time.
    pub const FRESH: [Self; 10] = [
        Self::Fresh0,
        Self::Fresh1,
        Self::Fresh2,
        Self::Fresh3,
        Self::Fresh4,
        Self::Fresh5,
        Self::Fresh6,
        Self::Fresh7,
        Self::Fresh8,
        Self::Fresh9,
    ];

    pub fn namespace(self) -> String {
        format!("acr-pull-e2e-{}", self.name())
    }

    pub fn client_id(self) -> String {
        format!("3f0c51a7-0000-4000-8000-0000000001{:02x}", self as u8)
    }

    pub fn repository(self) -> String {
        format!("e2e/{}", self.name())
    }

    pub fn image(self) -> String {
        format!("{REGISTRY}/{}:1", self.repository())
    }

    pub fn subject(self) -> String {
        format!("system:serviceaccount:{}:app", self.namespace())
    }

    /// Recreates the namespace with the service account and the generator `contoso`.
    pub async fn set_up(self, client: &Client, overrides: Value) -> ScenarioNamespace {
        let namespace = self.recreate_namespace(client).await;
        namespace.create_identity(overrides).await;
        namespace
    }

    /// Recreates the namespace, and pushes the image unless the registry has it.
    pub async fn recreate_namespace(self, client: &Client) -> ScenarioNamespace {
        azure::ready(client).await;
        azure::push_images([format!("{}:1", self.repository())]).await;
        let namespaces = Api::<Namespace>::all(client.clone());
        let name = self.namespace();
        if namespaces.get_opt(&name).await.unwrap().is_some() {
            let _ = namespaces.delete(&name, &DeleteParams::default()).await;
            TestNamespace::existing(client, &name).wait_until_gone().await;
        }
        ScenarioNamespace {
            namespace: TestNamespace::create(client, name, json!({})).await,
            scenario: self,
        }
    }
}

/// The namespace of a scenario, on a cluster with nodes.
pub struct ScenarioNamespace {
    namespace: TestNamespace,
    pub scenario: Scenario,
}

impl Deref for ScenarioNamespace {
    type Target = TestNamespace;

    fn deref(&self) -> &TestNamespace {
        &self.namespace
    }
}

impl ScenarioNamespace {
    /// Creates the service account `app` for the application of the scenario.
    pub async fn create_service_account(&self) {
        let client_id = self.scenario.client_id();
        let tenant = (TENANT_ID, azure::TENANT);
        self.apply_service_account("app", &[(CLIENT_ID, &client_id), tenant])
            .await;
    }

    /// Creates the service account and the generator `contoso`.
    pub async fn create_identity(&self, overrides: Value) {
        self.create_service_account().await;
        self.create_generator("contoso", overrides).await;
    }

    /// Creates a generator whose tenant is that of the service account.
    pub async fn create_generator(&self, name: &str, mut overrides: Value) {
        overrides["tenantId"] = Value::Null;
        self.apply_generator(name, overrides).await;
    }

    /// Creates a Pod with the image of the scenario.
    pub async fn create_app(&self, name: &str, annotation: Option<&str>) -> Pod {
        self.try_create_app(name, annotation).await.unwrap()
    }

    /// Creates a Pod with the image of the scenario, which may be refused.
    pub async fn try_create_app(&self, name: &str, annotation: Option<&str>) -> kube::Result<Pod> {
        self.try_create_pod(&app(name, &self.scenario.image(), annotation))
            .await
    }

    pub async fn create_pod_with_image(&self, name: &str, image: &str, annotation: Option<&str>) -> Pod {
        self.create_pod(&app(name, image, annotation)).await
    }

    /// Creates the object in the namespace.
    pub async fn create_object<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api = self.api::<K>();
        api.create(&PostParams::default(), &from(object)).await.unwrap()
    }

    /// Waits until the Pod runs.
    pub async fn wait_until_running(&self, name: &str) {
        let pods = self.pods();
        eventually(&format!("{}/{name} runs", self.name()), async || {
            let status = pods.get(name).await.unwrap().status?;
            status.container_statuses?.iter().all(|c| c.ready).then_some(())
        })
        .await;
    }

    /// Waits until the Pod's image was refused.
    pub async fn wait_until_pull_fails(&self, name: &str) {
        let pods = self.pods();
        let what = format!("{}/{name} is in ImagePullBackOff", self.name());
        eventually(&what, async || {
            let status = pods.get(name).await.unwrap().status?;
            let container = status.container_statuses?.into_iter().next()?;
            assert!(
                container.state.as_ref().is_none_or(|s| s.running.is_none()),
                "{name} runs"
            );
            (container.state?.waiting?.reason? == "ImagePullBackOff").then_some(())
        })
        .await;
    }

    /// The warnings about the Pod's image or its pull secret.
    pub async fn pull_warnings(&self, name: &str) -> Vec<String> {
        let events = self.events().await.into_iter();
        events
            .filter(|event| event.involved_object.name.as_deref() == Some(name))
            .filter(|event| event.type_.as_deref() == Some("Warning"))
            // A busy kubelet does not always mount a volume, such as that of the Pod's token, at its first attempt.
            .filter(|event| event.reason.as_deref() != Some("FailedMount"))
            .map(|event| {
                let (reason, message) = (
                    event.reason.unwrap_or_default(),
                    event.message.unwrap_or_default(),
                );
                format!("{reason}: {message}")
            })
            .collect()
    }

    /// The only pull secret in the namespace.
    pub async fn only_pull_secret(&self) -> ACRPullSecret {
        let all = self.list_pull_secrets().await;
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap()
    }

    /// Deletes a Pod, and waits until it is gone.
    pub async fn delete_pod_and_wait(&self, name: &str) {
        self.delete_pod(name).await;
        let pods = self.pods();
        eventually("the Pod is deleted", async || {
            pods.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// The service account of the scenario, which a test may change.
    pub fn service_accounts(&self) -> Api<ServiceAccount> {
        self.api()
    }
}

fn app(name: &str, image: &str, annotation: Option<&str>) -> Pod {
    let annotations = annotation.map_or(json!({}), |value| json!({ANNOTATION: value}));
    from(pod_json(name, image, annotations))
}
