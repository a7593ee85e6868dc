//! The control planes of these tests.

use chart::Run;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::MutatingWebhookConfiguration,
        core::v1::{Namespace, Pod},
    },
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};
use testkit::{
    control_plane::{ControlPlane, apply},
    objects::from,
};

/// A control plane, and a client with all rights.
pub struct Cluster {
    pub control_plane: Arc<ControlPlane>,
    pub client: Client,
}

impl Cluster {
    /// The control plane that the tests without a release share.
    pub async fn shared() -> Self {
        static SHARED: OnceLock<Arc<ControlPlane>> = OnceLock::new();
        Self::of(SHARED.get_or_init(|| Arc::new(ControlPlane::start()))).await
    }

    pub async fn of(control_plane: &Arc<ControlPlane>) -> Self {
        Self {
            control_plane: control_plane.clone(),
            client: control_plane.admin().await,
        }
    }

    /// `kubectl` with these words as arguments.
    pub fn kubectl(&self, line: &str) -> Run {
        Run::new(self.control_plane.kubectl())
            .env("KUBECONFIG", self.control_plane.kubeconfig())
            .env("KUBECACHEDIR", self.control_plane.kubectl_cache())
            .args(line.split_whitespace())
    }

    /// `kubectl VERB --filename -` with an object or YAML.
    pub async fn send(&self, verb: &str, manifest: impl ToString) {
        let run = self.kubectl(verb).args(["--filename", "-"]);
        run.input(manifest.to_string()).succeed().await;
    }

    pub fn all<K: Resource<DynamicType = ()>>(&self) -> Api<K> {
        Api::all(self.client.clone())
    }

    pub fn namespaced<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a namespace unless it exists.
    pub async fn ensure_namespace(&self, name: &str) {
        let namespace: Namespace = from(json!({"metadata": {"name": name}}));
        apply(&self.all(), &namespace).await;
    }

    pub async fn registration(&self, name: &str) -> MutatingWebhookConfiguration {
        self.all().get(name).await.unwrap()
    }

    /// Changes a registration by a JSON patch.
    pub async fn patch_registration(&self, name: &str, manager: &str, patch: Value) {
        let registrations = self.all::<MutatingWebhookConfiguration>();
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::<Value>::Json(from(patch));
        registrations.patch(name, &params, &patch).await.unwrap();
    }

    /// Creates a Pod of the service account `default` without persisting it.
    pub async fn dry_run_pod(&self, namespace: &str, annotations: Value) -> kube::Result<Pod> {
        let mut pod = testkit::objects::pod_json("probe", "docker.io/app", annotations);
        pod["spec"]["serviceAccountName"] = json!("default");
        let pods = self.namespaced::<Pod>(namespace);
        pods.create(&testkit::objects::dry_run(), &from(pod)).await
    }
}
