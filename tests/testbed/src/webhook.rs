//! The webhook's own binary, as a process.

use crate::{
    control_plane::{self, ControlPlane, NAMESPACE},
    site::IDENTITY_HEADER,
};
use azure_emulator::Emulator;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

/// A running webhook; it ends with this value.
pub struct Webhook {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub ca_pem: String,
    /// The secret path that it had published, or would have, when it was ready.
    path: String,
    log: Arc<Mutex<Vec<String>>>,
    child: Child,
    /// From its start until it was ready.
    pub ready_after: Duration,
    /// Its working folder, with `tls.crt` and `tls.key`.
    pub files: TempDir,
}

/// Where all webhooks of a control plane keep their secret path: the one that the deployed account may read.
pub const SECRET: &str = "acr-pull-webhook-certificates";

/// The program: cargo tells the tests of its package where it is, and whoever else starts it does the same.
pub fn program() -> std::ffi::OsString {
    const VARIABLE: &str = "CARGO_BIN_EXE_acr-pull-webhook";
    std::env::var_os(VARIABLE)
        .unwrap_or_else(|| panic!("{VARIABLE} is not set: it names the webhook's program"))
}

impl Webhook {
    /// Starts it with the deployed webhook's rights, on a machine whose Azure is this one.
    pub async fn start(cluster: &ControlPlane, azure: &Emulator, flags: &[String]) -> Self {
        let kubeconfig = &cluster.prepared().await.webhook_kubeconfig;
        Self::start_by(kubeconfig, azure, flags).await
    }

    /// The same by another way to the API server.
    pub async fn start_by(kubeconfig: &Path, azure: &Emulator, flags: &[String]) -> Self {
        Self::start_as(Command::new(program()), kubeconfig, azure, flags).await
    }

    /// The same by a command that runs the program, or another build of it.
    pub async fn start_as(
        mut command: Command,
        kubeconfig: &Path,
        azure: &Emulator,
        flags: &[String],
    ) -> Self {
        let files = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
        let ca_pem = write_certificate(files.path());
        std::fs::write(files.path().join("azure-ca.crt"), azure.ca_pem()).unwrap();
        let certificate: &[&str] = match certifies_itself(flags) {
            true => &[],
            false => &["--tls-cert=tls.crt", "--tls-key=tls.key"],
        };
        command
            .args(["serve", "--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"])
            .args(["--extra-ca-file=azure-ca.crt"])
            .arg(format!("--tls-secret={NAMESPACE}/{SECRET}"))
            .args(certificate)
            // Everything the program and its libraries have to say, so that a leaked token would show.
            .env("ACR_PULL_WEBHOOK_LOG_LEVEL", "trace")
            .args(["--log-format=json", "--shutdown-delay=0"])
            .args(flags)
            .current_dir(files.path())
            .env("KUBECONFIG", kubeconfig)
            // It has no right to a Lease there: a leader would look after the pull secrets of other tests.
            .env("ACR_PULL_WEBHOOK_LEADER_ELECTION_NAMESPACE", "default")
            .env("HTTPS_PROXY", azure.proxy_url().unwrap())
            .env("IDENTITY_ENDPOINT", azure.identity_endpoint().unwrap())
            .env("IDENTITY_HEADER", IDENTITY_HEADER)
            .env_remove("NO_PROXY")
            .env_remove("no_proxy")
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = log.clone();
        let (serving, mut says) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.contains("\"message\":\"serving\"") {
                    let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
                    let field = |name: &str| entry[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
                    let _ = serving.send((field("listen_addr"), field("admin_addr")));
                }
                written.lock().unwrap().push(line);
            }
        });
        let Some((address, admin)) = says.recv().await else {
            panic!(
                "the webhook ends before it says where it listens: {:?}",
                log.lock().unwrap()
            );
        };
        let mut webhook = Self {
            address,
            admin,
            ca_pem,
            path: String::new(),
            log,
            child,
            files,
            ready_after: Duration::MAX,
        };
        let (client, url) = (plain_client(), format!("http://{admin}/readyz"));
        let ready = async {
            while client
                .get(&url)
                .send()
                .await
                .is_ok_and(|reply| reply.status() != 200)
            {
                // Short beside a start, which is measured by this, and long beside an answer.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(90), ready).await;
        in_time.expect("the webhook is ready within 90 s");
        webhook.ready_after = began.elapsed();
        webhook.path = path(&control_plane::client(kubeconfig, None).await).await;
        webhook
    }

    /// A path of the admin listener: status and body.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        match plain_client()
            .get(format!("http://{}{path}", self.admin))
            .send()
            .await
        {
            Ok(reply) => (reply.status().as_u16(), reply.text().await.unwrap_or_default()),
            Err(error) => (0, error.to_string()),
        }
    }

    /// A client that trusts the webhook's certificate.
    pub fn client(&self) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.ca_pem.as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .build()
            .unwrap()
    }

    /// The same for those who write what no HTTP client would.
    pub fn tls(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap())
            .unwrap();
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// The URL that the API server calls.
    pub fn url(&self) -> String {
        format!("https://{}{}", self.address, self.path)
    }

    /// Everything logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Asks it to end, and waits until it has; true when it ended by itself, without an error.
    pub async fn terminate(&mut self) -> bool {
        self.signal("TERM").await;
        self.child.wait().await.unwrap().success()
    }

    /// Kills it, and waits until it is dead.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// What it holds of the machine's memory, in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.process())
    }

    /// Sends it a signal by name.
    pub async fn signal(&self, name: &str) {
        control_plane::signal(self.process(), name).await;
    }
}

/// The secret path of the webhooks of this control plane, as these keep it.
pub async fn path(client: &kube::Client) -> String {
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    let data = secrets.get(SECRET).await.unwrap().data.unwrap();
    format!("/mutate/{}", std::str::from_utf8(&data["path"].0).unwrap())
}

fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// What a process holds of the machine's memory, in bytes (VmRSS of proc(5)).
pub fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .unwrap()
        * 1024
}

/// Whether a webhook with these flags makes its own certificate.
pub fn certifies_itself(flags: &[String]) -> bool {
    flags.iter().any(|flag| flag.starts_with("--tls-names"))
}

/// Writes a pair for 127.0.0.1; returns its authority, which is itself.
pub fn write_certificate(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    certificate.pem()
}
