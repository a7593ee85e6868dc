//! An installation as deployed: the objects of `deploy/kustomize/base` in a cluster without nodes. The webhook is a
//! process of this machine, and the endpoint of its Service.

use crate::registry::Registry;
use data_encoding::HEXLOWER;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Output,
};
use testkit::{
    azure::{REGISTRY, add_service_principal},
    control_plane::{NAMESPACE, apply},
    env::TestEnv,
    eventually,
    objects::from,
    turns,
    webhook::program,
};
use tokio::net::{TcpListener, TcpStream};

/// The webhook is called by the name of its Service, and by its address until the Service exists.
const FLAGS: [&str; 2] = [
    "--tls-names=127.0.0.1,acr-pull-webhook.acr-pull-webhook.svc",
    "--certificate-lifetime=2160h",
];

pub struct Installation {
    pub env: TestEnv,
    /// Azure before any change.
    pub azure: Value,
    _registry: Registry,
}

/// What `check` or `explain` found.
#[derive(Debug)]
pub struct Report {
    pub code: i32,
    pub json: Value,
}

impl Report {
    /// All findings that are not well.
    pub fn findings(&self) -> Vec<&Value> {
        let sections = self.json["sections"].as_array().into_iter().flatten();
        let findings = sections.flat_map(|section| section["findings"].as_array().into_iter().flatten());
        findings.filter(|finding| finding["status"] != "ok").collect()
    }

    pub fn has(&self, reason: &str) -> bool {
        self.findings().iter().any(|finding| finding["reason"] == reason)
    }

    /// The commands of the findings with something wrong, or of those with this reason.
    pub fn commands(&self) -> Vec<String> {
        let wrong = self
            .findings()
            .into_iter()
            .filter(|finding| finding["reason"] != "NotChecked");
        let commands = wrong.flat_map(|finding| finding["commands"].as_array().into_iter().flatten());
        commands
            .map(|command| command.as_str().unwrap().to_owned())
            .collect()
    }
}

impl Installation {
    pub async fn start() -> Self {
        let registry = Registry::start();
        let mut azure = Value::Null;
        let env =
            TestEnv::leading_on_api_server_with(&["--enable-aggregator-routing=true"], &FLAGS, |world| {
                world["registries"][0]["upstream"] = json!(registry.url);
                add_service_principal(world);
                azure = world.clone();
            })
            .await;
        push_image(&registry.url, "team-a/app", "1").await;
        let installation = Self {
            env,
            azure,
            _registry: registry,
        };
        installation.deploy().await;
        installation
    }

    /// Creates the objects that integration tests otherwise do without.
    async fn deploy(&self) {
        let address = own_address();
        let port = forward(address, self.env.webhook.address).await;
        let maps = Api::<ConfigMap>::namespaced(self.env.client.clone(), NAMESPACE);
        let file = "/etc/acr-pull-webhook/extra-ca/ca.crt";
        for (name, data) in [
            (
                "acr-pull-webhook-settings",
                json!({"ACR_PULL_WEBHOOK_EXTRA_CA_FILE": file}),
            ),
            (
                "acr-pull-webhook-extra-ca",
                json!({"ca.crt": self.env.azure.ca_pem()}),
            ),
        ] {
            apply(&maps, &from(json!({"metadata": {"name": name}, "data": data}))).await;
        }
        let mount = json!({"name": "ca", "mountPath": "/etc/acr-pull-webhook/extra-ca"});
        let pods = json!({
            "volumes": [{"name": "ca", "configMap": {"name": "acr-pull-webhook-extra-ca"}}],
            "containers": [{"name": "webhook", "volumeMounts": [mount]}],
        });
        let patch = json!({"spec": {"template": {"spec": pods}}});
        let labels = "app.kubernetes.io/name=acr-pull-webhook";
        self.shell(&format!(
            "kubectl apply --server-side --filename deploy/kustomize/base/deployment.yaml
             kubectl label --namespace {NAMESPACE} deployment/acr-pull-webhook {labels}
             kubectl patch --namespace {NAMESPACE} deployment acr-pull-webhook --patch '{patch}'
             kubectl delete mutatingwebhookconfiguration acr-pull-webhook
             kubectl apply --server-side --filename deploy/kustomize/base/webhook.yaml
             {}",
            endpoint(address, port)
        ))
        .await;
        tokio::spawn(report_ready(Api::namespaced(self.env.client.clone(), NAMESPACE)));
        self.wait_until_well("").await;
    }

    /// The command that makes the process the endpoint of the Service again.
    pub async fn endpoint(&self) -> String {
        let address = own_address();
        endpoint(address, forward(address, self.env.webhook.address).await)
    }

    /// The address and the port at which the API server reaches the admin listener of the process.
    pub async fn admin(&self) -> (IpAddr, u16) {
        let address = own_address();
        (address, forward(address, self.env.webhook.admin).await)
    }

    /// Runs a line of shell as the administrator, with the webhook's program.
    pub async fn try_shell(&self, line: &str) -> Output {
        let program = program();
        let folder = Path::new(&program).parent().unwrap().display().to_string();
        let line = line.replace("TEAM_A", self.env.team_a.namespace.name());
        let line = format!("export PATH=\"{folder}:$PATH\"\n{line}");
        self.env.cluster.shell(&line).await
    }

    pub async fn shell(&self, line: &str) {
        let output = self.try_shell(line).await;
        assert!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs `check` or `explain` with these arguments.
    pub async fn run(&self, arguments: &str) -> Report {
        let proxy = self.env.azure.emulator.proxy_url().unwrap();
        // Arguments may end with flags of `serve`.
        let (subcommand, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
        let output = self
            .try_shell(&format!(
                "HTTPS_PROXY={proxy} acr-pull-webhook {subcommand} --output=json {rest}"
            ))
            .await;
        let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{arguments}: {error}: {output:?}");
        });
        self.assert_no_secret(&output);
        Report {
            code: output.status.code().unwrap(),
            json,
        }
    }

    pub async fn check(&self, arguments: &str) -> Report {
        self.run(&format!("check {arguments}")).await
    }

    pub async fn wait_until_well(&self, arguments: &str) {
        eventually(&format!("check {arguments} finds nothing wrong"), async || {
            let report = self.check(arguments).await;
            testkit::observe(json!(report.findings()));
            (report.code == 0).then_some(())
        })
        .await;
    }

    /// No token, no assertion and not the secret path is printed.
    fn assert_no_secret(&self, output: &Output) {
        let printed = format!("{output:?}");
        for trace in self.env.azure.credentials().traces() {
            assert!(!printed.contains(trace.as_str()), "a credential was printed");
        }
        let path = self.env.webhook.url();
        let path = path.rsplit('/').next().unwrap();
        assert!(!printed.contains(path), "the secret path was printed: {printed}");
    }
}

fn endpoint(address: IpAddr, port: u16) -> String {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "acr-pull-webhook-process", "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": "acr-pull-webhook"},
        },
        "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    });
    format!("kubectl apply --filename - <<'JSON'\n{slice}\nJSON")
}

/// The address of this machine: an endpoint of a Service may not be a loopback address.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // No packet is sent.
    socket
        .connect("198.51.100.1:9")
        .expect("this machine has a route, and so an address besides the loopback address");
    socket.local_addr().unwrap().ip()
}

/// Forwards connections from a free port of this address; returns the port.
async fn forward(address: IpAddr, to: SocketAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(to).await {
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    port
}

/// Does what kubelets would do: reports each Pod as running and ready.
async fn report_ready(pods: Api<Pod>) {
    let mut turns = turns();
    loop {
        turns.tick().await;
        for pod in pods
            .list(&ListParams::default())
            .await
            .map(|list| list.items)
            .unwrap_or_default()
        {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if phase != Some("Running") {
                let ready = json!({"type": "Ready", "status": "True"});
                let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
                let params = PatchParams::default();
                let _ = pods
                    .patch_status(&pod.name_any(), &params, &Patch::Merge(&status))
                    .await;
            }
        }
    }
}

/// Pushes an image without layers to a registry that asks for no credentials.
async fn push_image(url: &str, repository: &str, tag: &str) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let config = b"{}".to_vec();
    let digest = format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(&config)));
    let started = http
        .post(format!("{url}/v2/{repository}/blobs/uploads/"))
        .send()
        .await
        .unwrap();
    let location = started.headers()["location"].to_str().unwrap().to_owned();
    let uploaded = http
        .put(location)
        .query(&[("digest", &digest)])
        .body(config.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(uploaded.status(), 201);
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let config = json!({"mediaType": "application/vnd.docker.container.image.v1+json", "digest": digest, "size": config.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": []});
    let pushed = http
        .put(format!("{url}/v2/{repository}/manifests/{tag}"))
        .header("content-type", media_type);
    assert_eq!(
        pushed.body(manifest.to_string()).send().await.unwrap().status(),
        201
    );
}

/// The arguments of a check of a pull of team A.
pub fn pull() -> String {
    format!("--namespace TEAM_A contoso --service-account app --image {REGISTRY}/team-a/app:1")
}
