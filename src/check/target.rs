//! Finds the installation in the cluster: the registration, the namespace and the Deployment.

use super::{
    api::{ApiServer, Unread, items, metadata_entry, name, text},
    settings::container,
};
use serde_json::Value;

/// The name of all objects of an installation, unless the chart's `fullnameOverride` or `configurationName` is set.
pub const DEFAULT_NAME: &str = "acr-pull-webhook";
/// The entry of the registration for annotated Pods.
pub const ANNOTATED_PODS: &str = "pods.acr-pull.dev";
/// The entry of the registration for Pods in labelled Namespaces.
pub const LABELLED_NAMESPACES: &str = "namespaces.acr-pull.dev";
/// The label of the Deployment and of its Pods.
const NAME_LABEL: &str = "app.kubernetes.io/name";

/// The installation, as far as the caller may read it.
pub struct Target {
    /// The namespace of the Deployment.
    pub namespace: String,
    /// The MutatingWebhookConfigurations with an entry of the webhook.
    pub registrations: Result<Vec<Value>, Unread>,
    /// The Deployment; `NotFound` if there is none in the namespace.
    pub deployment: Result<Value, Unread>,
}

impl Target {
    /// Finds the installation. Without a namespace, the Service in the registration decides.
    pub async fn find(api: &ApiServer, namespace: Option<&str>) -> Self {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let registrations = api.list(path).await;
        let registrations = registrations.map(|all| all.into_iter().filter(is_ours).collect::<Vec<_>>());
        let namespace = namespace
            .map(str::to_owned)
            .unwrap_or_else(|| namespace_of(&registrations));
        let path = format!(
            "/apis/apps/v1/namespaces/{namespace}/deployments?labelSelector={NAME_LABEL}%3D{DEFAULT_NAME}"
        );
        let deployments = api.list(&path).await;
        let deployment = deployments.and_then(|all| {
            let mut serving = all
                .into_iter()
                .filter(|deployment| container(deployment).is_some());
            serving.next().ok_or(Unread::NotFound)
        });
        Self {
            namespace,
            registrations,
            deployment,
        }
    }

    /// The MutatingWebhookConfiguration with this name, if it exists and could be read.
    pub fn registration(&self, configured: &str) -> Option<&Value> {
        let mut all = self.registrations.iter().flatten();
        all.find(|found| name(found) == configured)
    }

    /// The name of the Deployment, which is the name of the Service and of most other objects too.
    pub fn name(&self) -> &str {
        self.deployment.as_ref().map_or(DEFAULT_NAME, name)
    }

    /// The service account of the webhook's Pods.
    pub fn service_account(&self) -> &str {
        let account = self
            .deployment
            .as_ref()
            .map_or("", |d| text(d, "/spec/template/spec/serviceAccountName"));
        if account.is_empty() { self.name() } else { account }
    }

    /// The command that applies the objects of a manifest again: from the Helm release, or from a checkout of this
    /// version.
    pub fn reapply(&self, manifest: &str) -> String {
        let deployment = self.deployment.as_ref().ok();
        let apply = "kubectl apply --server-side --force-conflicts --filename";
        match deployment.and_then(|d| metadata_entry(d, "annotations", "meta.helm.sh/release-name")) {
            // The manifest lacks the annotations by which Helm knows its objects, and Helm 4 would not uninstall them.
            Some(release) => format!(
                "helm get manifest {release} --namespace {namespace} \
                 | kubectl annotate --local --overwrite --output yaml --filename - \
                 meta.helm.sh/release-name={release} meta.helm.sh/release-namespace={namespace} | {apply} -",
                namespace = self.namespace
            ),
            None => format!("{apply} deploy/kustomize/base/{manifest}"),
        }
    }
}

fn is_ours(registration: &Value) -> bool {
    let mut entries = items(registration, "/webhooks").iter();
    entries.any(|entry| {
        [ANNOTATED_PODS, LABELLED_NAMESPACES]
            .iter()
            .any(|name| entry["name"] == *name)
    })
}

fn namespace_of(registrations: &Result<Vec<Value>, Unread>) -> String {
    let all = registrations.iter().flatten();
    let mut entries = all.flat_map(|registration| items(registration, "/webhooks"));
    let named = entries.find_map(|entry| entry.pointer("/clientConfig/service/namespace")?.as_str());
    named.unwrap_or(DEFAULT_NAME).to_owned()
}
