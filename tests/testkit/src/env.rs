//! The environment of one integration test: a control plane, an Azure, a webhook, and the namespaces of two teams that
//! the webhook is registered for.

use crate::{
    api_proxy::ApiProxy,
    azure::{self, Azure, IDENTITY_HEADER},
    control_plane::{self, ControlPlane, NAMESPACE, apply},
    eventually,
    namespace::TestNamespace,
    objects::{CLIENT_ID, cluster_generator_spec, from, pod},
    review::{post, review},
    webhook::{Webhook, certifies_itself},
};
use acr_pull_webhook::generator::ClusterGenerator;
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Pod, ServiceAccount},
        rbac::v1::{ClusterRoleBinding, RoleBinding},
    },
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams},
};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::process::Command;

/// Lets the webhook become the leader.
const LEADER_NAMESPACE: &str = "--leader-election-namespace=acr-pull-webhook";
/// A leader that was killed is replaced within seconds.
const LEADER_FLAGS: [&str; 4] = [
    LEADER_NAMESPACE,
    "--leader-election-retry-period=500ms",
    "--leader-election-renew-deadline=2s",
    "--leader-election-lease-duration=3s",
];

/// A namespace with the service account `app` and the generator `contoso`, and the application of that account.
pub struct Team {
    pub namespace: TestNamespace,
    pub client_id: &'static str,
    pub repository: &'static str,
}

pub struct TestEnv {
    id: String,
    pub cluster: Arc<ControlPlane>,
    flags: Vec<String>,
    proxy: Option<ApiProxy>,
    pub client: Client,
    pub azure: Azure,
    pub webhook: Webhook,
    pub team_a: Team,
    pub team_b: Team,
}

impl TestEnv {
    /// An environment on the control plane that all tests share. The webhook is never the leader.
    pub async fn start() -> Self {
        Self::with_flags(&[]).await
    }

    /// The same with more flags of the webhook.
    pub async fn with_flags(flags: &[&str]) -> Self {
        Self::with(flags, |_| ()).await
    }

    /// The same with more flags, in which TEAM_A and TEAM_B stand for the teams' namespaces, and a changed Azure.
    pub async fn with(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        Self::on(control_plane::shared().clone(), None, flags, change).await
    }

    /// The same on a control plane of its own, whose kube-apiserver has these additional flags.
    pub async fn on_api_server_with(flags: &'static [&'static str]) -> Self {
        let cluster = ControlPlane::start_own_with(flags).await;
        Self::on(cluster, None, &[], |_| ()).await
    }

    /// An environment on a control plane of its own, whose webhook becomes the leader.
    pub async fn leading(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let cluster = ControlPlane::start_own().await;
        Self::on(cluster, None, &[&LEADER_FLAGS, flags].concat(), change).await
    }

    /// The same, whose kube-apiserver has these additional flags.
    pub async fn leading_on_api_server_with(
        api_server_flags: &'static [&'static str],
        flags: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Self {
        let cluster = ControlPlane::start_own_with(api_server_flags).await;
        Self::on(cluster, None, &[&LEADER_FLAGS, flags].concat(), change).await
    }

    /// The same, whose webhook reaches the API server through a proxy.
    pub async fn leading_through_proxy(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let cluster = ControlPlane::start_own().await;
        let proxy = ApiProxy::start(&cluster).await;
        Self::on(cluster, Some(proxy), &[&LEADER_FLAGS, flags].concat(), change).await
    }

    /// The same without a proxy. The webhook creates its own certificates with this lifetime.
    pub async fn certifying(lifetime: &str) -> Self {
        let lifetime = format!("--certificate-lifetime={lifetime}");
        Self::leading(&["--tls-names=127.0.0.1", &lifetime], |_| ()).await
    }

    /// An environment on a control plane of its own, whose webhook becomes the leader with the default periods of the
    /// leader election: the work of an idle webhook is part of a measurement.
    pub async fn leading_with_default_periods(flags: &[&str]) -> Self {
        let cluster = ControlPlane::start_own().await;
        Self::on(cluster, None, &[&[LEADER_NAMESPACE], flags].concat(), |_| ()).await
    }

    async fn on(
        cluster: Arc<ControlPlane>,
        proxy: Option<ApiProxy>,
        flags: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("env-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let prepared = cluster.prepared().await;
        let client = cluster.admin().await;
        let team = |suffix: &str, client_id, repository| Team {
            namespace: TestNamespace::existing(&client, format!("{id}-{suffix}")),
            client_id,
            repository,
        };
        let team_a = team("a", "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa", "team-a/app");
        let team_b = team("b", "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb", "team-b/app");
        let mut world = world(&prepared.issuer, &prepared.jwks, &[&team_a, &team_b]);
        change(&mut world);
        let azure = Azure::start(&world);
        let flags: Vec<_> = flags
            .iter()
            .map(|flag| {
                flag.replace("TEAM_A", team_a.namespace.name())
                    .replace("TEAM_B", team_b.namespace.name())
            })
            .collect();
        let kubeconfig = webhook_kubeconfig(&prepared.webhook_kubeconfig, proxy.as_ref());
        let webhook = Webhook::start_with(kubeconfig, &azure, &flags).await;
        let env = Self {
            id,
            cluster,
            flags,
            proxy,
            client,
            azure,
            webhook,
            team_a,
            team_b,
        };
        for team in [&env.team_a, &env.team_b] {
            env.create_namespace(team.namespace.name(), &env.id, team.client_id)
                .await;
        }
        env.register().await;
        env
    }

    /// One more replica of the webhook, which the API server does not call.
    pub async fn replica(&self) -> Webhook {
        Webhook::start(&self.cluster, &self.azure, &self.flags).await
    }

    /// The same, started by a command that runs the program or another build of it.
    pub async fn replica_by(&self, command: Command) -> Webhook {
        let kubeconfig = &self.cluster.prepared().await.webhook_kubeconfig;
        Webhook::start_by(command, kubeconfig, &self.azure, &self.flags).await
    }

    /// Starts the webhook again, as after a crash, and registers the new process.
    pub async fn restart_webhook(&mut self) {
        let prepared = self.cluster.prepared().await;
        let kubeconfig = webhook_kubeconfig(&prepared.webhook_kubeconfig, self.proxy.as_ref());
        self.webhook = Webhook::start_with(kubeconfig, &self.azure, &self.flags).await;
        self.register().await;
    }

    /// Deletes the binding of the webhook's ClusterRole. The returned RoleBinding grants the same rights in the
    /// namespace in which it is applied.
    pub async fn revoke_cluster_role(&self) -> RoleBinding {
        let bindings = Api::<ClusterRoleBinding>::all(self.client.clone());
        let deleted = bindings.delete(NAMESPACE, &DeleteParams::default()).await;
        deleted.unwrap();
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAMESPACE});
        let account = json!({"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE});
        from(json!({"metadata": {"name": NAMESPACE}, "roleRef": role, "subjects": [account]}))
    }

    pub fn proxy(&self) -> &ApiProxy {
        self.proxy.as_ref().expect("this environment has a proxy")
    }

    /// A namespace that exists on the cluster.
    pub fn namespace(&self, name: &str) -> TestNamespace {
        TestNamespace::existing(&self.client, name)
    }

    /// Creates a namespace with this value of the label `test`, the annotated service account and the generator
    /// `contoso`.
    pub async fn create_namespace(&self, name: &str, label: &str, client_id: &str) -> TestNamespace {
        let namespace = TestNamespace::create(&self.client, name, json!({"test": label})).await;
        namespace
            .apply_service_account("app", &[(CLIENT_ID, client_id)])
            .await;
        namespace.apply_generator("contoso", json!({})).await;
        // A controller creates the account `default` after the namespace.
        let accounts = namespace.api::<ServiceAccount>();
        eventually("the default service account exists", async || {
            accounts.get_opt("default").await.unwrap()
        })
        .await;
        namespace
    }

    /// Registers the webhook as `deploy/` does, but for the teams' namespaces and the address of the process.
    async fn register(&self) {
        // A webhook with certificates of its own publishes its authority in the registration of the deployed name.
        let (name, ca) = match certifies_itself(&self.flags) {
            true => (None, None),
            false => (Some(self.id.as_str()), Some(self.webhook.ca_pem.as_str())),
        };
        self.register_at(name, &self.id, &self.webhook.url(), ca).await;
        let probe = pod("probe", "not a name");
        eventually("the API server calls the webhook", async || {
            let refused = self.team_a.namespace.dry_run_pod(&probe).await.err()?;
            refused.to_string().contains("InvalidAnnotation").then_some(())
        })
        .await;
    }

    /// Applies the registration of `deploy/` for this URL and for the namespaces with this value of the label `test`.
    pub async fn register_at(&self, name: Option<&str>, label: &str, url: &str, ca_pem: Option<&str>) {
        let mut registration = self.cluster.prepared().await.registration.clone();
        if let Some(name) = name {
            registration.metadata.name = Some(name.to_owned());
        }
        for hook in registration.webhooks.as_mut().unwrap() {
            hook.client_config.service = None;
            hook.client_config.url = Some(url.to_owned());
            hook.client_config.ca_bundle = ca_pem.map(|pem| ByteString(pem.as_bytes().to_vec()));
            let selector = hook.namespace_selector.get_or_insert_default();
            selector.match_labels = Some([("test".to_owned(), label.to_owned())].into());
        }
        apply(&Api::all(self.client.clone()), &registration).await;
    }

    /// The value of the label `test` of both teams' namespaces, and the name of the registration.
    pub fn label(&self) -> &str {
        &self.id
    }

    /// Creates a service account of team A for this application, and a generator of the same name.
    pub async fn create_workload(&self, name: &str, client_id: &str, overrides: Value) {
        let namespace = &self.team_a.namespace;
        namespace
            .apply_service_account(name, &[(CLIENT_ID, client_id)])
            .await;
        namespace.apply_generator(name, overrides).await;
    }

    /// Creates a ClusterGenerator for the registry and returns the reference to it.
    pub async fn cluster_generator(&self, overrides: Value) -> String {
        self.cluster_generator_of("own", cluster_generator_spec(overrides))
            .await
    }

    /// Creates a ClusterGenerator with any spec and a name that ends with `suffix`, and returns the reference to it.
    pub async fn cluster_generator_of(&self, suffix: &str, spec: Value) -> String {
        let name = format!("{}-{suffix}", self.id);
        // The type of this project lacks the fields of other kinds of generator.
        let kind = ApiResource::erase::<ClusterGenerator>(&());
        let (api_version, metadata) = (&kind.api_version, json!({"name": name}));
        let generator: DynamicObject =
            from(json!({"apiVersion": api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}));
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
        api.create(&PostParams::default(), &generator).await.unwrap();
        format!("ClusterGenerator/{name}")
    }

    /// The webhook's warnings about a Pod, without the creation of the Pod.
    pub async fn warnings(&self, namespace: &TestNamespace, pod: &Pod) -> Vec<String> {
        let answer = post(self, &review(namespace, pod)).await;
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        let warnings = answer["response"]["warnings"].as_array();
        let warnings = warnings.into_iter().flatten();
        warnings.map(|w| w.as_str().unwrap().to_owned()).collect()
    }

    /// Asserts that the credentials in a Secret permit a pull from a repository.
    pub async fn assert_pulls(&self, namespace: &TestNamespace, secret: &str, repository: &str) {
        let status = self.pull_status(namespace, secret, repository).await;
        assert_eq!(status, 502, "authorized; no registry is behind the emulator");
    }

    /// The status of a pull with the credentials in a Secret; see `Azure::pull_status`.
    pub async fn pull_status(&self, namespace: &TestNamespace, secret: &str, repository: &str) -> u16 {
        let credentials = namespace.credentials(secret).await;
        self.azure.pull_status(credentials, repository).await
    }

    /// Asserts that the webhook's log, which is as verbose as possible, contains no credential.
    pub fn assert_no_secret_was_logged(&self) {
        let traces = self.azure.credentials().traces();
        assert!(!traces.is_empty());
        let log = self.webhook.log();
        assert!(
            log.iter().any(|line| line.contains("TRACE")),
            "the log is at its most verbose level"
        );
        for line in log {
            for trace in &traces {
                assert!(
                    !line.contains(trace.as_str()),
                    "a secret was logged: {}",
                    line.replace(trace.as_str(), "[…]")
                );
            }
            assert!(
                !line.contains("\\\"auths\\\""),
                "a docker config was logged: {line}"
            );
            assert!(!line.contains(IDENTITY_HEADER), "IDENTITY_HEADER was logged");
        }
    }
}

fn webhook_kubeconfig<'a>(direct: &'a Path, proxy: Option<&'a ApiProxy>) -> &'a Path {
    proxy.map_or(direct, ApiProxy::kubeconfig)
}

/// Azure with the applications of these teams.
fn world(issuer: &str, jwks: &str, teams: &[&Team]) -> Value {
    let accounts = ["app", "default", "puller"];
    let application =
        |team: &&Team| azure::application(team.client_id, issuer, team.namespace.name(), &accounts);
    let applications = teams.iter().map(application).collect();
    let rights = teams
        .iter()
        .map(|team| azure::pull_right(team.client_id, team.repository));
    // Only end-to-end tests pull images.
    let upstream = "http://127.0.0.1:1";
    let jwks = serde_json::from_str(jwks).unwrap();
    azure::world(issuer, jwks, applications, upstream, rights.collect())
}
