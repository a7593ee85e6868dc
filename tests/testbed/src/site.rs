//! One test's own place: two teams in namespaces of their own, an Azure that knows
//! them, and a webhook registered for their namespaces alone.

use crate::{
    control_plane::{self, ControlPlane, NAMESPACE, apply},
    gate::Gate,
    webhook::{Webhook, certifies_itself},
};
use acr_pull_webhook::{
    generator::{ACRAccessToken, ClusterGenerator},
    pull_secret::{ACRPullSecret, ACRPullSecretStatus},
};
use azure_emulator::{Emulator, Endpoint, Options, RequestRecord, World};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    ByteString,
    api::{
        core::v1::{Namespace, Pod, Secret, ServiceAccount},
        rbac::v1::{ClusterRoleBinding, RoleBinding},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::Status,
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::process::Command;

pub const TENANT: &str = "11111111-1111-1111-1111-111111111111";
pub const REGISTRY: &str = "contoso.azurecr.io";
/// What the machine of these webhooks wants to be shown for a token of a managed identity.
pub const IDENTITY_HEADER: &str = "853b9a84-0000-4b22-a3f3-0b9a43d9ad8a";
pub const ANNOTATION: &str = "acr-pull.dev/access-token";

/// So that whoever is killed is replaced within seconds.
const LEADING: [&str; 4] = [
    "--leader-election-namespace=acr-pull-webhook",
    "--leader-election-retry-period=500ms",
    "--leader-election-renew-deadline=2s",
    "--leader-election-lease-duration=3s",
];

/// A team: a namespace, the service account `app` in it, and what it may pull.
pub struct Team {
    pub namespace: String,
    pub client_id: &'static str,
    pub repository: &'static str,
}

pub struct Site {
    id: String,
    pub cluster: Arc<ControlPlane>,
    flags: Vec<String>,
    /// The way of a leading webhook to the API server.
    gate: Option<Gate>,
    pub client: Client,
    pub emulator: Emulator,
    pub webhook: Webhook,
    pub a: Team,
    pub b: Team,
}

// === impl Site ===

impl Site {
    pub async fn start() -> Self {
        Self::with_flags(&[]).await
    }

    /// A site whose webhook has further flags.
    pub async fn with_flags(flags: &[&str]) -> Self {
        Self::with(flags, |_| ()).await
    }

    /// A site whose webhook has further flags, in which TEAM_A and TEAM_B are the teams' namespaces, and whose Azure differs.
    pub async fn with(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        Self::on(control_plane::shared().clone(), None, flags, change).await
    }

    /// A site on a control plane of its own, whose webhook leads.
    pub async fn leading(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let cluster = Self::own_cluster().await;
        Self::on(cluster, None, &[&LEADING, flags].concat(), change).await
    }

    /// The same, whose webhook goes to the API server through a gate.
    pub async fn leading_through_a_gate(flags: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        let cluster = Self::own_cluster().await;
        let gate = Gate::start(&cluster).await;
        Self::on(cluster, Some(gate), &[&LEADING, flags].concat(), change).await
    }

    /// The same, whose webhook makes its own certificates, which last so long.
    pub async fn certifying(lifetime: &str) -> Self {
        let cluster = Self::own_cluster().await;
        let lifetime = format!("--certificate-lifetime={lifetime}");
        let flags = ["--tls-names=127.0.0.1", &lifetime];
        Self::on(cluster, None, &[&LEADING[..], &flags].concat(), |_| ()).await
    }

    /// A further replica of this site's webhook, which no API server calls.
    pub async fn replica(&self) -> Webhook {
        Webhook::start(&self.cluster, &self.emulator, &self.flags).await
    }

    /// The same by a command that runs the program, or another build of it.
    pub async fn replica_as(&self, command: Command) -> Webhook {
        let kubeconfig = &self.cluster.prepared().await.webhook_kubeconfig;
        Webhook::start_as(command, kubeconfig, &self.emulator, &self.flags).await
    }

    async fn own_cluster() -> Arc<ControlPlane> {
        Arc::new(tokio::task::spawn_blocking(ControlPlane::start).await.unwrap())
    }

    async fn on(
        cluster: Arc<ControlPlane>,
        gate: Option<Gate>,
        flags: &[&str],
        change: impl FnOnce(&mut Value),
    ) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let id = format!("site-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let prepared = cluster.prepared().await;
        let client = cluster.admin().await;
        let a = Team {
            namespace: format!("{id}-a"),
            client_id: "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",
            repository: "team-a/app",
        };
        let b = Team {
            namespace: format!("{id}-b"),
            client_id: "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb",
            repository: "team-b/app",
        };
        let mut world = world(&prepared.issuer, &prepared.jwks, &[&a, &b]);
        change(&mut world);
        let world = World::parse(&world.to_string()).unwrap();
        let emulator = Emulator::start(world, Options::default()).unwrap();
        let flags: Vec<_> = flags
            .iter()
            .map(|flag| {
                flag.replace("TEAM_A", &a.namespace)
                    .replace("TEAM_B", &b.namespace)
            })
            .collect();
        let kubeconfig = gate
            .as_ref()
            .map_or(&prepared.webhook_kubeconfig, Gate::kubeconfig);
        let webhook = Webhook::start_by(kubeconfig, &emulator, &flags).await;
        let site = Self {
            id,
            cluster,
            flags,
            gate,
            client,
            emulator,
            webhook,
            a,
            b,
        };
        for team in [&site.a, &site.b] {
            site.settle(team).await;
        }
        site.register().await;
        site
    }

    /// Starts the webhook anew, as after a crash, and points the API server to it.
    pub async fn restart_webhook(&mut self) {
        let prepared = self.cluster.prepared().await;
        let kubeconfig = self
            .gate
            .as_ref()
            .map_or(&prepared.webhook_kubeconfig, Gate::kubeconfig);
        self.webhook = Webhook::start_by(kubeconfig, &self.emulator, &self.flags).await;
        self.register().await;
    }

    /// Takes the webhook's ClusterRole away; returns what grants the same rights in a namespace, once it is applied there.
    pub async fn roles_alone(&self) -> RoleBinding {
        let bindings = Api::<ClusterRoleBinding>::all(self.client.clone());
        let gone = bindings.delete(NAMESPACE, &DeleteParams::default()).await;
        gone.unwrap();
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAMESPACE});
        let account = json!({"kind": "ServiceAccount", "name": NAMESPACE, "namespace": NAMESPACE});
        from(json!({"metadata": {"name": NAMESPACE}, "roleRef": role, "subjects": [account]}))
    }

    pub fn gate(&self) -> &Gate {
        self.gate.as_ref().expect("this site has a gate")
    }

    async fn settle(&self, team: &Team) {
        self.settle_in(&team.namespace, &self.id, team.client_id).await;
    }

    /// A namespace of this label, the annotated service account in it, and the generator `contoso`.
    pub async fn settle_in(&self, namespace: &str, label: &str, client_id: &str) {
        let object = from(json!({"metadata": {"name": namespace, "labels": {"test": label}}}));
        Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let annotations = [("azure.workload.identity/client-id", client_id)];
        self.service_account(namespace, "app", &annotations).await;
        self.generator(namespace, "contoso", json!({})).await;
        // The account `default` is made by a controller a moment after the namespace.
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), namespace);
        eventually("the default service account exists", async || {
            accounts.get_opt("default").await.unwrap()
        })
        .await;
    }

    /// Registers the webhook as `deploy/` does, but for this site's namespaces and address.
    async fn register(&self) {
        // One that certifies itself publishes its authority in the registration of the deployed name.
        let (name, ca) = match certifies_itself(&self.flags) {
            true => (None, None),
            false => (Some(self.id.as_str()), Some(self.webhook.ca_pem.as_str())),
        };
        self.register_at(name, &self.id, &self.webhook.url(), ca).await;
        eventually("the API server calls the webhook", async || {
            let mut probe = pod("probe", "not a name");
            probe.metadata.namespace = Some(self.a.namespace.clone());
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            let refused = self.pods(&self.a.namespace).create(&dry_run, &probe).await.err();
            refused
                .filter(|e| e.to_string().contains("InvalidAnnotation"))
                .map(drop)
        })
        .await;
    }

    /// The registration of `deploy/`, by another name perhaps, for the namespaces whose label `test` says so, of what answers
    /// at this URL.
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

    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub fn pull_secrets(&self, namespace: &str) -> Api<ACRPullSecret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The status of a pull secret that has one.
    pub async fn status(&self, namespace: &str, name: &str) -> ACRPullSecretStatus {
        let owner = self.pull_secrets(namespace).get(name).await.unwrap();
        owner.status.expect("the webhook has told its state")
    }

    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Creates a Pod and returns it as the API server keeps it.
    pub async fn create(&self, namespace: &str, pod: &Pod) -> Pod {
        self.pods(namespace)
            .create(&PostParams::default(), pod)
            .await
            .unwrap()
    }

    /// Creates a Pod that must be refused, and returns the refusal.
    pub async fn refused(&self, namespace: &str, pod: &Pod) -> Box<Status> {
        match self.pods(namespace).create(&PostParams::default(), pod).await {
            Ok(_) => panic!("the Pod was admitted"),
            Err(kube::Error::Api(status)) => status,
            Err(error) => panic!("{error}"),
        }
    }

    /// Creates or changes a service account.
    pub async fn service_account(&self, namespace: &str, name: &str, annotations: &[(&str, &str)]) {
        let annotations: Value = annotations
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect();
        let account = from(json!({"metadata": {"name": name, "annotations": annotations}}));
        apply(
            &Api::<ServiceAccount>::namespaced(self.client.clone(), namespace),
            &account,
        )
        .await;
    }

    /// Creates or changes a generator for the registry by the Pod's own identity; `spec` overrides.
    pub async fn generator(&self, namespace: &str, name: &str, spec: Value) {
        let mut whole = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let generator = from(json!({"metadata": {"name": name}, "spec": whole}));
        apply(
            &Api::<ACRAccessToken>::namespaced(self.client.clone(), namespace),
            &generator,
        )
        .await;
    }

    /// Creates a service account of team A with this application, and a generator of the same name.
    pub async fn workload(&self, name: &str, client_id: &str, spec: Value) {
        let namespace = &self.a.namespace;
        let annotation = ("azure.workload.identity/client-id", client_id);
        self.service_account(namespace, name, &[annotation]).await;
        self.generator(namespace, name, spec).await;
    }

    /// One of the webhook's metrics, by its name and labels without the common prefix.
    pub async fn metric(&self, name: &str) -> u64 {
        let (_, metrics) = self.webhook.admin_get("/metrics").await;
        let line = metrics
            .lines()
            .find_map(|l| l.strip_prefix("acr_pull_webhook_")?.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} is a metric"))
            .trim()
            .parse()
            .unwrap()
    }

    /// How many pull secrets the webhook is getting a token for.
    pub async fn webhook_is_issuing(&self) -> u64 {
        self.metric("pull_secrets_issuing").await
    }

    /// Creates a ClusterGenerator of this site's own name, of any spec, and returns how a Pod refers to it.
    pub async fn cluster_generator(&self, spec: Value) -> String {
        self.cluster_generator_named("own", spec).await
    }

    /// The same with a name that differs by `suffix` from this site's others.
    pub async fn cluster_generator_named(&self, suffix: &str, spec: Value) -> String {
        let name = format!("{}-{suffix}", self.id);
        // Not by our type, which knows no other kind's fields.
        let kind = ApiResource::erase::<ClusterGenerator>(&());
        let (api_version, metadata) = (&kind.api_version, json!({"name": name}));
        let generator: DynamicObject =
            from(json!({"apiVersion": api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}));
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &kind);
        api.create(&PostParams::default(), &generator).await.unwrap();
        format!("ClusterGenerator/{name}")
    }

    /// Sets or, with null, removes the label by which a namespace has a default.
    pub async fn namespace_default(&self, namespace: &str, label: Value) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {ANNOTATION: label}}}));
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces
            .patch(namespace, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// What the webhook warns of when it is asked about this Pod, as the API server would ask.
    pub async fn warnings(&self, namespace: &str, pod: &Pod) -> Vec<String> {
        let answer = crate::review::post(self, &crate::review::review(namespace, pod)).await;
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        let warnings = answer["response"]["warnings"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        warnings.iter().map(|w| w.as_str().unwrap().to_owned()).collect()
    }

    /// How often this application has asked a service of the emulator.
    pub fn calls_of(&self, client_id: &str, endpoint: Endpoint) -> usize {
        let mut all = self.records(endpoint);
        all.retain(|r| r.client_id.as_deref() == Some(client_id));
        all.len()
    }

    /// How often a service of the emulator was asked.
    pub fn calls(&self, endpoint: Endpoint) -> usize {
        self.records(endpoint).len()
    }

    /// The requests that a service of the emulator got.
    pub fn records(&self, endpoint: Endpoint) -> Vec<RequestRecord> {
        self.emulator
            .requests()
            .into_iter()
            .filter(|r| r.endpoint == Some(endpoint))
            .collect()
    }

    /// User name and password that the kubelet would find for the registry in a Secret.
    pub async fn credentials(&self, namespace: &str, name: &str) -> (String, String) {
        let secret = self.secrets(namespace).get(name).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
        let config: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
        let entry = &config["auths"][REGISTRY];
        let (user, password) = (
            entry["username"].as_str().unwrap(),
            entry["password"].as_str().unwrap(),
        );
        assert_eq!(entry["auth"], STANDARD.encode(format!("{user}:{password}")));
        (user.to_owned(), password.to_owned())
    }

    /// What the credentials of a Secret may pull of a repository: the status of a request for its tags.
    pub async fn opens(&self, namespace: &str, name: &str, repository: &str) -> u16 {
        let (user, password) = self.credentials(namespace, name).await;
        let client = self.azure_client();
        let scope = format!("repository:{repository}:pull");
        let token = client
            .get(format!("https://{REGISTRY}/oauth2/token"))
            .query(&[("service", REGISTRY), ("scope", &scope)])
            .basic_auth(user, Some(password))
            .send()
            .await
            .unwrap();
        if token.status() != 200 {
            return token.status().as_u16();
        }
        let token: Value = token.json().await.unwrap();
        let tags = client
            .get(format!("https://{REGISTRY}/v2/{repository}/manifests/1"))
            .bearer_auth(token["access_token"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        tags.status().as_u16()
    }

    fn azure_client(&self) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.emulator.ca_pem().as_bytes()).unwrap();
        reqwest::Client::builder()
            .proxy(reqwest::Proxy::all(self.emulator.proxy_url().unwrap()).unwrap())
            .tls_certs_only([ca])
            .build()
            .unwrap()
    }

    /// Deletes one object by name and waits until it is gone.
    pub async fn delete_secret(&self, namespace: &str, name: &str) {
        self.secrets(namespace)
            .delete(name, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Waits until the garbage collector has taken a Secret.
    pub async fn secret_is_collected(&self, namespace: &str, name: &str) {
        let secrets = self.secrets(namespace);
        eventually("the Secret is collected", async || {
            secrets.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// Fails when anything secret stands in the webhook's log, which is at its most verbose.
    pub fn assert_no_secret_was_logged(&self) {
        let traces = self.emulator.credentials().traces();
        assert!(!traces.is_empty());
        let log = self.webhook.log();
        assert!(
            log.iter().any(|line| line.contains("TRACE")),
            "the log is at its most verbose"
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

/// Azure as these teams know it.
fn world(issuer: &str, jwks: &str, teams: &[&Team]) -> Value {
    let applications: Vec<_> = teams
        .iter()
        .map(|team| {
            let trust = |account: &str| {
                let subject = format!("system:serviceaccount:{}:{account}", team.namespace);
                json!({"issuer": issuer, "subject": subject})
            };
            json!({"clientId": team.client_id, "federatedCredentials": [trust("app"), trust("default"), trust("puller")]})
        })
        .collect();
    let rights: Vec<_> = teams
        .iter()
        .map(|team| json!({"clientId": team.client_id, "repositories": [team.repository], "actions": ["pull"]}))
        .collect();
    json!({
        "tenants": [{"id": TENANT, "applications": applications}],
        "issuers": [{"issuer": issuer, "jwks": serde_json::from_str::<Value>(jwks).unwrap()}],
        // Nothing is pulled here: that is what the end-to-end tests are for.
        "registries": [{"host": REGISTRY, "tenant": TENANT, "upstream": "http://127.0.0.1:1", "rights": rights}],
        "appService": {"identityHeader": IDENTITY_HEADER},
    })
}

/// Adds an application with the rights of team A, for a service account of this name in its namespace.
pub fn add_application(world: &mut Value, account: &str, client_id: &str) {
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    let mut application = applications[0].clone();
    let mut trust = application["federatedCredentials"][0].clone();
    let of_app = trust["subject"].as_str().unwrap();
    trust["subject"] = format!("{}:{account}", of_app.strip_suffix(":app").unwrap()).into();
    application["federatedCredentials"] = json!([trust]);
    application["clientId"] = client_id.into();
    applications.push(application);
    let rights = world["registries"][0]["rights"].as_array_mut().unwrap();
    let mut right = rights[0].clone();
    right["clientId"] = client_id.into();
    rights.push(right);
}

/// A Pod of service account `app` with this annotation.
pub fn pod(name: &str, annotation: &str) -> Pod {
    from(json!({
        "metadata": {"name": name, "annotations": {ANNOTATION: annotation}},
        "spec": {"serviceAccountName": "app", "containers": [{"name": "app", "image": format!("{REGISTRY}/team-a/app:1")}]},
    }))
}

/// The same, with a name that the API server makes up.
pub fn unnamed(annotation: &str) -> Pod {
    let mut pod = pod("", annotation);
    pod.metadata.name = None;
    pod.metadata.generate_name = Some("next-".to_owned());
    pod
}

/// A Pod of this name's service account and generator, with a name that the API server makes up.
pub fn pod_of(workload: &str) -> Pod {
    let mut pod = unnamed(workload);
    pod.spec.as_mut().unwrap().service_account_name = Some(workload.to_owned());
    pod
}

/// An object from its JSON.
pub fn from<K: serde::de::DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

/// The names of a Pod's pull secrets.
pub fn pull_secret_names(pod: &Pod) -> Vec<String> {
    let all = pod
        .spec
        .as_ref()
        .unwrap()
        .image_pull_secrets
        .clone()
        .unwrap_or_default();
    all.into_iter().map(|s| s.name).collect()
}

/// The one pull secret of a Pod.
pub fn pull_secret_name(pod: &Pod) -> String {
    let names = pull_secret_names(pod);
    assert_eq!(names.len(), 1, "{} names {names:?}", pod.name_any());
    names[0].clone()
}

/// Waits until `check` gives something. The longest wait is that for the garbage collector, which
/// looks for new kinds every 30 s.
pub async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(90), async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("within 90 s: {what}"))
}
