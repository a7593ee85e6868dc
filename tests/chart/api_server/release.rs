//! The release on a control plane that limits the priority classes of the system, as GKE does: only a namespace with a
//! ResourceQuota for them may use them.

use super::{cluster::Cluster, turn};
use chart::{NAME, Run, helm, kubectl::object_names};
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{ResourceExt, api::ListParams};
use std::{
    ffi::OsStr,
    io::Write,
    ops::Deref,
    sync::{Arc, OnceLock},
};
use tempfile::NamedTempFile;
use testkit::{control_plane::ControlPlane, eventually};
use tokio::sync::{Mutex, MutexGuard};

pub const CRDS: [&str; 3] = [
    "acrpullsecrets.acr-pull.dev",
    "acraccesstokens.generators.external-secrets.io",
    "clustergenerators.generators.external-secrets.io",
];
/// The kinds of the chart's objects.
const CLUSTER_KINDS: &str = "mutatingwebhookconfigurations,validatingadmissionpolicies,\
    validatingadmissionpolicybindings,clusterroles,clusterrolebindings";
const NAMESPACED_KINDS: &str = "all,resourcequotas,configmaps,secrets,serviceaccounts,roles,rolebindings,\
    poddisruptionbudgets,leases";

/// The label of all objects of the chart and of the kustomize base.
const LABEL: &str = "app.kubernetes.io/name=acr-pull-webhook";

const LIMITED_PRIORITY_CLASSES: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
  - name: ResourceQuota
    configuration:
      apiVersion: apiserver.config.k8s.io/v1
      kind: ResourceQuotaConfiguration
      limitedResources:
        - resource: pods
          matchScopes:
            - scopeName: PriorityClass
              operator: In
              values: [system-node-critical, system-cluster-critical]
";

/// The cluster of the release. The tests of the release run one after the other, because its objects have no namespace
/// or the same one.
pub struct Release {
    cluster: Cluster,
    version: helm::Version,
    _turn: MutexGuard<'static, ()>,
}

impl Release {
    /// A cluster without objects of the release, which Helm 4 manages.
    pub async fn none() -> Self {
        Self::none_of(helm::Version::Four).await
    }

    /// The same with a version of Helm.
    pub async fn none_of(version: helm::Version) -> Self {
        static TURN: Mutex<()> = Mutex::const_new(());
        static LIMITED: OnceLock<Arc<ControlPlane>> = OnceLock::new();
        let turn = turn::wait_for(&TURN).await;
        let release = Self {
            cluster: Cluster::of(LIMITED.get_or_init(start_limited)).await,
            version,
            _turn: turn,
        };
        release.clean().await;
        release
    }

    /// The same, without the CRDs, which an uninstallation keeps. Other tests keep the CRDs, because the garbage
    /// collector of Kubernetes needs half a minute after each change of the kinds.
    pub async fn none_and_no_crds() -> Self {
        let release = Self::none().await;
        let crds = "delete crd --ignore-not-found";
        release.kubectl(crds).args(CRDS).succeed().await;
        release
    }

    /// Removes what a failed test has left.
    async fn clean(&self) {
        let cluster =
            "validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingwebhookconfigurations";
        self.kubectl("delete --all").arg(cluster).succeed().await;
        let bindings = "delete rolebindings --all --namespace default";
        self.kubectl(bindings).succeed().await;
        self.delete_foreign_crds().await;
        if self.objects().await.is_empty() {
            return;
        }
        self.helm("uninstall").arg("--ignore-not-found").succeed().await;
        // The namespace is kept: a test that gives up during its deletion would leave a terminating namespace, in which
        // the next test cannot create anything.
        let kinds = format!("{CLUSTER_KINDS},{NAMESPACED_KINDS}");
        let delete = self
            .kubectl("delete --all-namespaces --selector")
            .arg(LABEL)
            .arg(kinds);
        delete.succeed().await;
        self.wait_until_no_object_is_left().await;
    }

    /// Deletes the CRDs that Helm has not created: it would refuse to install them.
    async fn delete_foreign_crds(&self) {
        let foreign = ListParams::default().labels("app.kubernetes.io/managed-by!=Helm");
        let crds = self.all::<CustomResourceDefinition>();
        let mut names: Vec<_> = crds
            .list(&foreign)
            .await
            .unwrap()
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        names.retain(|name| CRDS.contains(&name.as_str()));
        if !names.is_empty() {
            self.kubectl("delete crd").args(names).succeed().await;
        }
    }

    fn helm(&self, verb: &str) -> Run {
        let run = helm::helm_of(self.version, verb).args([NAME, "--namespace", NAME]);
        run.env("KUBECONFIG", self.control_plane.kubeconfig())
    }

    /// Helm does not wait for Pods, because the control plane has no node.
    pub async fn install<S: AsRef<OsStr>>(&self, flags: impl IntoIterator<Item = S>) -> String {
        let run = self.helm("install").arg(helm::chart()).arg("--create-namespace");
        run.args(flags).succeed().await
    }

    pub async fn upgrade<S: AsRef<OsStr>>(&self, flags: impl IntoIterator<Item = S>) {
        let run = self.helm("upgrade").arg(helm::chart());
        run.args(flags).succeed().await;
    }

    /// Waits until the Pod of the test has ended.
    pub async fn test(&self) {
        self.helm("test").succeed().await;
    }

    pub async fn uninstall(&self) {
        self.helm("uninstall").succeed().await;
    }

    /// The objects of the release, without CRDs.
    pub async fn objects(&self) -> Vec<String> {
        let cluster = self.kubectl("get --output name").arg(CLUSTER_KINDS);
        let namespaced = self
            .kubectl("get --all-namespaces --output name")
            .arg(NAMESPACED_KINDS);
        let (cluster, namespaced) = tokio::join!(cluster.succeed(), namespaced.succeed());
        let names = object_names(&cluster).chain(object_names(&namespaced));
        names
            .filter(|name| name.contains(NAME))
            .map(str::to_owned)
            .collect()
    }

    /// Pods are deleted a moment after their Deployment.
    pub async fn wait_until_no_object_is_left(&self) {
        eventually("no object of the release is left", async || {
            self.objects().await.is_empty().then_some(())
        })
        .await;
    }

    /// The Pods of the webhook.
    pub async fn pods(&self) -> Vec<Pod> {
        let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
        self.namespaced(NAME).list(&ours).await.unwrap().items
    }

    pub async fn wait_for_pods(&self, count: usize) -> Vec<Pod> {
        eventually(&format!("there are {count} Pods"), async || {
            let pods = self.pods().await;
            (pods.len() == count).then_some(pods)
        })
        .await
    }

    /// Waits until the controller reports why it cannot create a Pod.
    pub async fn wait_until_replica_set_reports(&self, text: &str) {
        eventually(&format!("a ReplicaSet reports {text:?}"), async || {
            let sets = self
                .namespaced::<ReplicaSet>(NAME)
                .list(&Default::default())
                .await
                .unwrap();
            let status = sets.items.into_iter().filter_map(|set| set.status?.conditions);
            let mut messages = status.flatten().filter_map(|condition| condition.message);
            messages.any(|message| message.contains(text)).then_some(())
        })
        .await;
    }
}

impl Deref for Release {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

fn start_limited() -> Arc<ControlPlane> {
    let mut file = NamedTempFile::with_prefix("acr-pull-webhook-test-").unwrap();
    file.write_all(LIMITED_PRIORITY_CLASSES.as_bytes()).unwrap();
    let flag = format!("--admission-control-config-file={}", file.path().display());
    Arc::new(ControlPlane::start_with(&[&flag]))
}
