//! A real Kubernetes control plane, started once for all tests of this run.

use crate::{process, programs, repository::root};
use acr_pull_webhook::crds;
use k8s_openapi::api::{
    admissionregistration::v1::{
        MutatingWebhookConfiguration, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
    },
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    fmt::Debug,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, OnceLock},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// A running control plane.
pub struct ControlPlane {
    /// It is removed when the control plane has ended.
    dir: PathBuf,
    kubeconfig: PathBuf,
    /// It ends when its standard input closes, so it cannot outlive this process.
    child: Child,
    prepared: OnceCell<Prepared>,
}

/// The objects and files of the cluster that every webhook under test needs.
pub struct Prepared {
    /// The registration as deployed, to be pointed at a webhook under test.
    pub registration: MutatingWebhookConfiguration,
    /// The right to a Lease, as deployed in the webhook's own namespace.
    pub lease_rights: (Role, RoleBinding),
    /// A kubeconfig with the rights of the deployed webhook, and no others.
    pub webhook_kubeconfig: PathBuf,
    /// The cluster's service account issuer.
    pub issuer: String,
    /// The keys of that issuer.
    pub jwks: String,
}

/// The namespace of the webhook's account, and the name of the account.
pub const NAMESPACE: &str = "acr-pull-webhook";

/// The control plane that most tests share.
pub fn shared() -> &'static Arc<ControlPlane> {
    static SHARED: OnceLock<Arc<ControlPlane>> = OnceLock::new();
    SHARED.get_or_init(|| Arc::new(ControlPlane::start()))
}

/// The control plane for tests of leaders: a leader manages the pull secrets of the whole cluster, which must not include
/// those of other tests.
pub fn for_elections() -> &'static Arc<ControlPlane> {
    static FOR_ELECTIONS: OnceLock<Arc<ControlPlane>> = OnceLock::new();
    FOR_ELECTIONS.get_or_init(|| Arc::new(ControlPlane::start()))
}

/// The control plane for tests of stolen credentials: a change of certificates affects every webhook of a control plane.
pub fn for_stolen_credentials() -> &'static Arc<ControlPlane> {
    static FOR_STOLEN_CREDENTIALS: OnceLock<Arc<ControlPlane>> = OnceLock::new();
    FOR_STOLEN_CREDENTIALS.get_or_init(|| Arc::new(ControlPlane::start()))
}

impl ControlPlane {
    /// A control plane of one test's own.
    pub async fn start_own() -> Arc<Self> {
        Self::start_own_with(&[]).await
    }

    /// A control plane of one test's own, whose kube-apiserver has these additional flags.
    pub async fn start_own_with(flags: &'static [&'static str]) -> Arc<Self> {
        let start = || Self::start_with(flags);
        Arc::new(tokio::task::spawn_blocking(start).await.unwrap())
    }

    /// Starts a control plane. The first start of a run also measures the speed of the machine, so the programs are built
    /// before it.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a control plane whose kube-apiserver has additional flags.
    pub fn start_with(flags: &[&str]) -> Self {
        let programs = programs::built();
        crate::speed::measured(|| Self::launch(programs, flags))
    }

    fn launch(programs: &Path, flags: &[&str]) -> Self {
        // The control planes of a static outlive all code of this process, so a shell removes the folder.
        let dir = TempDir::with_prefix("acr-pull-webhook-test-").unwrap().keep();
        let mut child = Command::new("sh")
            .args(["-c", r#"dir=$1 && shift && "$@" || exit; rm -rf "$dir""#, "sh"])
            .arg(&dir)
            .arg(programs.join("control-plane"))
            .arg("--dir")
            .arg(dir.join("cluster"))
            .args(flags.iter().map(|flag| format!("--api-server-flag={flag}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program control-plane can be started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let kubeconfig = line
            .trim()
            .strip_prefix("ready kubeconfig=")
            .expect("the control plane starts; its own message is above");
        Self {
            kubeconfig: kubeconfig.into(),
            dir,
            child,
            prepared: OnceCell::new(),
        }
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The cluster's kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.kubeconfig.with_file_name("bin").join("kubectl")
    }

    /// The cache folder of kubectl. It ends with the cluster: what kubectl learns about the cluster has no use after it.
    pub fn kubectl_cache(&self) -> PathBuf {
        self.kubeconfig.with_file_name("kubectl-cache")
    }

    /// The certificate of the cluster's authority, in PEM.
    pub fn authority(&self) -> String {
        std::fs::read_to_string(self.kubeconfig.with_file_name("pki").join("ca.crt")).unwrap()
    }

    /// A client with all rights.
    pub async fn admin(&self) -> Client {
        client(&self.kubeconfig, None).await
    }

    /// A client that acts as the deployed webhook's account, by impersonation.
    pub async fn as_webhook(&self) -> Client {
        client(
            &self.kubeconfig,
            Some(format!("system:serviceaccount:{NAMESPACE}:{NAMESPACE}")),
        )
        .await
    }

    /// A client with a token of the deployed webhook's account, as a thief has it. It impersonates another user on request.
    pub async fn with_webhooks_token(&self, impersonate: Option<&str>) -> Client {
        let prepared = self.prepared().await;
        client(&prepared.webhook_kubeconfig, impersonate.map(str::to_owned)).await
    }

    /// Kills the API server; the rest stays.
    pub async fn kill_api_server(&self) {
        self.order("stop kube-apiserver");
        crate::eventually("nobody listens there", async || {
            tokio::net::TcpStream::connect(self.api_server()).await.err()
        })
        .await;
    }

    /// Starts it again where it was.
    pub async fn start_api_server(&self) {
        self.order("start kube-apiserver");
        self.api_server_is_ready().await;
    }

    /// Waits until it is.
    pub async fn api_server_is_ready(&self) {
        let admin = self.admin().await;
        crate::eventually("the API server is ready", async || {
            let ready = http::Request::get("/readyz").body(Vec::new()).unwrap();
            admin.request_text(ready).await.ok()
        })
        .await;
    }

    fn order(&self, order: &str) {
        writeln!(self.child.stdin.as_ref().unwrap(), "{order}").unwrap();
    }

    /// Stops it as it is: it takes connections, and says nothing.
    pub async fn freeze_api_server(&self) {
        process::signal(self.api_server_process(), "STOP").await;
    }

    /// It goes on.
    pub async fn thaw_api_server(&self) {
        process::signal(self.api_server_process(), "CONT").await;
    }

    fn api_server_process(&self) -> u32 {
        let file = self.kubeconfig.with_file_name("kube-apiserver.pid");
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    fn api_server(&self) -> String {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig).unwrap();
        let server = kubeconfig.clusters[0].cluster.clone().unwrap().server.unwrap();
        server.strip_prefix("https://").unwrap().to_owned()
    }

    /// Runs a line of shell as the administrator, with the cluster's kubectl.
    pub async fn shell(&self, line: &str) -> std::process::Output {
        let programs = self.kubeconfig.with_file_name("bin");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
        tokio::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", line])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PATH", path)
            .env("KUBECACHEDIR", self.kubectl_cache())
            // kubectl ends before garbage collection pays.
            .env("GOGC", "off")
            .current_dir(root())
            .output()
            .await
            .unwrap()
    }

    /// The deployed manifests, applied once.
    pub async fn prepared(&self) -> &Prepared {
        self.prepared.get_or_init(|| self.prepare()).await
    }

    async fn prepare(&self) -> Prepared {
        let client = self.admin().await;
        for crd in crds::own().into_iter().chain(crds::generators()) {
            apply(&Api::all(client.clone()), &crd).await;
        }
        // A list that comes before a kind is served can hang for a minute.
        let crds = Api::<CustomResourceDefinition>::all(client.clone());
        for crd in crds::own().into_iter().chain(crds::generators()) {
            let name = crd.name_any();
            crate::eventually("the kind is served", async || {
                let conditions = crds.get(&name).await.unwrap().status?.conditions?;
                let mut established = conditions
                    .iter()
                    .filter(|c| c.type_ == "Established" && c.status == "True");
                established.next().map(drop)
            })
            .await;
        }
        let manifests = self.kustomize("deploy/kustomize/base");
        apply(&Api::<Namespace>::all(client.clone()), &find(&manifests)).await;
        apply(
            &Api::<ServiceAccount>::namespaced(client.clone(), NAMESPACE),
            &find(&manifests),
        )
        .await;
        for role in all::<ClusterRole>(&manifests) {
            apply(&Api::all(client.clone()), &role).await;
        }
        for binding in all::<ClusterRoleBinding>(&manifests) {
            apply(&Api::all(client.clone()), &binding).await;
        }
        for role in all::<Role>(&manifests) {
            apply(&Api::namespaced(client.clone(), NAMESPACE), &role).await;
        }
        for binding in all::<RoleBinding>(&manifests) {
            apply(&Api::namespaced(client.clone(), NAMESPACE), &binding).await;
        }
        for mut policy in all::<ValidatingAdmissionPolicy>(&manifests) {
            permit_another_audience(&mut policy);
            apply(&Api::all(client.clone()), &policy).await;
        }
        for binding in all::<ValidatingAdmissionPolicyBinding>(&manifests) {
            apply(&Api::all(client.clone()), &binding).await;
        }
        let discovery = raw(&client, "/.well-known/openid-configuration").await;
        let discovery: serde_json::Value = serde_json::from_str(&discovery).unwrap();
        Prepared {
            registration: find(&manifests),
            lease_rights: (find(&manifests), find(&manifests)),
            webhook_kubeconfig: self.webhook_kubeconfig(&client).await,
            issuer: discovery["issuer"].as_str().unwrap().to_owned(),
            jwks: raw(&client, "/openid/v1/jwks").await,
        }
    }

    /// The manifests as `kubectl apply -k` would send them.
    fn kustomize(&self, folder: &str) -> Vec<serde_json::Value> {
        let output = Command::new(self.kubectl())
            .arg("kustomize")
            .arg(root().join(folder))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        programs::manifests(std::str::from_utf8(&output.stdout).unwrap())
    }

    async fn webhook_kubeconfig(&self, admin: &Client) -> PathBuf {
        let request = TokenRequest {
            spec: TokenRequestSpec {
                expiration_seconds: Some(7200),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let token = Api::<ServiceAccount>::namespaced(admin.clone(), NAMESPACE)
            .create_token_request(NAMESPACE, &PostParams::default(), &request)
            .await
            .unwrap();
        let mut config = serde_json::to_value(Kubeconfig::read_from(&self.kubeconfig).unwrap()).unwrap();
        config["users"][0]["user"] = serde_json::json!({"token": token.status.unwrap().token});
        let path = self.dir.join("webhook.kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }
}

pub(crate) async fn client(kubeconfig: &Path, impersonate: Option<String>) -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    for user in &mut kubeconfig.auth_infos {
        if let Some(info) = &mut user.auth_info {
            info.impersonate.clone_from(&impersonate);
        }
    }
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.proxy_url = None;
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// The object of this kind that is named as the webhook is.
fn find<K: DeserializeOwned + Resource<DynamicType = ()>>(manifests: &[serde_json::Value]) -> K {
    let mut found = all::<K>(manifests)
        .into_iter()
        .filter(|object| object.meta().name.as_deref() == Some(NAMESPACE));
    found
        .next()
        .unwrap_or_else(|| panic!("a {} {NAMESPACE} is in deploy/", K::kind(&())))
}

/// Every object of this kind among the manifests.
fn all<K: DeserializeOwned + Resource<DynamicType = ()>>(manifests: &[serde_json::Value]) -> Vec<K> {
    let kind = K::kind(&());
    let of_kind = manifests.iter().filter(|m| m["kind"] == *kind);
    of_kind
        .map(|m| serde_json::from_value(m.clone()).unwrap())
        .collect()
}

/// As who deploys with two --token-audiences has to: one test does.
fn permit_another_audience(policy: &mut ValidatingAdmissionPolicy) {
    let variables = policy.spec.iter_mut().flat_map(|s| &mut s.variables).flatten();
    for variable in variables.filter(|v| v.name == "audiences") {
        variable.expression = "['api://AzureADTokenExchange', 'api://other']".to_owned();
    }
}

/// Server-side apply as the administrator.
pub async fn apply<K>(api: &Api<K>, object: &K)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let params = PatchParams::apply("test").force();
    api.patch(&object.name_any(), &params, &Patch::Apply(object))
        .await
        .unwrap();
}

async fn raw(client: &Client, path: &str) -> String {
    client
        .request_text(http::Request::get(path).body(Vec::new()).unwrap())
        .await
        .unwrap()
}
