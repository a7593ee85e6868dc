//! The webhook's program, as a process.

use crate::{
    azure::{Azure, IDENTITY_HEADER},
    control_plane::{self, ControlPlane, NAMESPACE},
    eventually, process, speed,
};
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
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

/// A running webhook. The process ends with this value.
pub struct Webhook {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub ca_pem: String,
    /// The secret path when the webhook was ready.
    path: String,
    log: Arc<Mutex<Vec<String>>>,
    child: Child,
    /// From the start of the process until it was ready.
    pub ready_after: Duration,
    /// The working folder of the process, with `tls.crt` and `tls.key`.
    pub files: TempDir,
}

/// The Secret with the secret path of all webhooks of a control plane: the deployed account may read it.
pub const SECRET: &str = "acr-pull-webhook-certificates";

/// How much of the webhook's log is printed when a test fails.
const LINES_AFTER_FAILURE: usize = 20;

/// The program. Cargo sets the variable for the tests of its package; other programs have to set it.
pub fn program() -> std::ffi::OsString {
    const VARIABLE: &str = "CARGO_BIN_EXE_acr-pull-webhook";
    std::env::var_os(VARIABLE)
        .unwrap_or_else(|| panic!("{VARIABLE} is not set: it names the webhook's program"))
}

impl Webhook {
    /// Starts the webhook with the deployed webhook's rights.
    pub async fn start(cluster: &ControlPlane, azure: &Azure, flags: &[String]) -> Self {
        let kubeconfig = &cluster.prepared().await.webhook_kubeconfig;
        Self::start_with(kubeconfig, azure, flags).await
    }

    /// The same with another kubeconfig.
    pub async fn start_with(kubeconfig: &Path, azure: &Azure, flags: &[String]) -> Self {
        // The kernel kills the webhook if the test process is killed, which then cannot do so itself.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(program());
        Self::start_by(command, kubeconfig, azure, flags).await
    }

    /// The same by a command that runs the program or another build of it.
    pub async fn start_by(command: Command, kubeconfig: &Path, azure: &Azure, flags: &[String]) -> Self {
        let files = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
        let ca_pem = write_certificate(files.path());
        std::fs::write(files.path().join("azure-ca.crt"), azure.ca_pem()).unwrap();
        let began = Instant::now();
        let mut child = spawn(command, files.path(), kubeconfig, azure, flags);
        let log = Arc::new(Mutex::new(Vec::new()));
        let (address, admin) = read_log(child.stderr.take().unwrap(), &log).await;
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
        webhook.wait_until_ready().await;
        webhook.ready_after = began.elapsed();
        webhook.path = path(&control_plane::client(kubeconfig, None).await).await;
        webhook
    }

    async fn wait_until_ready(&self) {
        let (client, url) = (plain_client(), format!("http://{}/readyz", self.admin));
        let ready = async {
            while client
                .get(&url)
                .send()
                .await
                .is_ok_and(|reply| reply.status() != 200)
            {
                // Short beside a start, whose duration is measured, and long beside an answer.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(speed::seconds(90), ready).await;
        in_time.expect("the webhook becomes ready");
    }

    /// The value of one of the webhook's metrics, by its name and labels without the common prefix.
    pub async fn metric(&self, name: &str) -> u64 {
        self.metric_text(name).await.parse().unwrap()
    }

    /// The same as a number with a fraction.
    pub async fn metric_f64(&self, name: &str) -> f64 {
        self.metric_text(name).await.parse().unwrap()
    }

    /// Waits until a counter has this value. The webhook counts after it has acted, so that a test sees the effect first.
    pub async fn wait_until_counted(&self, name: &str, count: u64) {
        let counted = eventually(&format!("{name} is at least {count}"), async || {
            let counted: u64 = self.find_metric(name).await?.parse().unwrap();
            (counted >= count).then_some(counted)
        })
        .await;
        assert_eq!(counted, count, "{name}");
    }

    async fn metric_text(&self, name: &str) -> String {
        let value = self.find_metric(name).await;
        value.unwrap_or_else(|| panic!("{name} is a metric"))
    }

    /// `None` before the first event of a counter with labels.
    async fn find_metric(&self, name: &str) -> Option<String> {
        let (status, metrics) = self.admin_get("/metrics").await;
        assert_eq!(status, 200, "{metrics}");
        let value = metrics.lines().find_map(|line| {
            line.strip_prefix("acr_pull_webhook_")?
                .strip_prefix(name)?
                .strip_prefix(' ')
        });
        value.map(str::to_owned)
    }

    pub async fn is_leader(&self) -> bool {
        self.metric("leader").await == 1
    }

    pub async fn wait_until_leader(&self) {
        eventually("the webhook is the leader", async || {
            self.is_leader().await.then_some(())
        })
        .await;
    }

    /// Waits until the webhook issues no pull secret.
    pub async fn wait_until_issued(&self) {
        eventually("all pull secrets are issued", async || {
            (self.metric("pull_secrets_issuing").await == 0).then_some(())
        })
        .await;
    }

    /// How many lines of the log contain this text.
    pub fn logged(&self, text: &str) -> usize {
        self.log_lines(text).len()
    }

    /// The lines of the log that contain this text.
    pub fn log_lines(&self, text: &str) -> Vec<String> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Waits until a line of the log contains this text.
    pub async fn wait_until_logged(&self, text: &str) {
        eventually(&format!("the webhook logs {text:?}"), async || {
            (self.logged(text) > 0).then_some(())
        })
        .await;
    }

    /// Status and body of a request to the admin listener.
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

    /// An HTTP client that trusts the webhook's certificate.
    pub fn client(&self) -> reqwest::Client {
        let ca = reqwest::Certificate::from_pem(self.ca_pem.as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([ca])
            .build()
            .unwrap()
    }

    /// A TLS client that trusts the webhook's certificate, for requests that an HTTP client cannot send.
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

    /// All lines logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Sends SIGTERM and waits for the end of the process; returns whether it succeeded.
    pub async fn terminate(&mut self) -> bool {
        self.signal("TERM").await;
        self.child.wait().await.unwrap().success()
    }

    /// Sends SIGKILL and waits for the end of the process.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// The process id.
    pub fn process(&self) -> u32 {
        self.child.id().expect("the webhook runs")
    }

    /// The resident memory of the process, in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.process())
    }

    /// Sends a signal by name.
    pub async fn signal(&self, name: &str) {
        process::signal(self.process(), name).await;
    }
}

/// The secret path of the webhooks of this control plane.
pub async fn path(client: &kube::Client) -> String {
    let secrets = Api::<Secret>::namespaced(client.clone(), NAMESPACE);
    let data = secrets.get(SECRET).await.unwrap().data.unwrap();
    format!("/mutate/{}", std::str::from_utf8(&data["path"].0).unwrap())
}

/// The log of a failed test is the only trace of its webhook.
impl Drop for Webhook {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let is_brief = |line: &&String| !line.contains("\"TRACE\"") && !line.contains("\"DEBUG\"");
        let lines: Vec<_> = log.iter().filter(is_brief).collect();
        let first = lines.len().saturating_sub(LINES_AFTER_FAILURE);
        eprintln!("the last {} lines of the webhook's log:", lines.len() - first);
        for line in &lines[first..] {
            eprintln!("{line}");
        }
    }
}

fn spawn(mut command: Command, folder: &Path, kubeconfig: &Path, azure: &Azure, flags: &[String]) -> Child {
    let certificate: &[&str] = match certifies_itself(flags) {
        true => &[],
        false => &["--tls-cert=tls.crt", "--tls-key=tls.key"],
    };
    command
        .args(["serve", "--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"])
        .args(["--extra-ca-file=azure-ca.crt"])
        .arg(format!("--tls-secret={NAMESPACE}/{SECRET}"))
        .args(certificate)
        // At the most verbose level, a leaked token is visible.
        .env("ACR_PULL_WEBHOOK_LOG_LEVEL", "trace")
        .args(["--log-format=json", "--shutdown-delay=0"])
        .args(flags)
        .current_dir(folder)
        .env("KUBECONFIG", kubeconfig)
        // The account has no right to a Lease there: a leader would renew the pull secrets of other tests.
        .env("ACR_PULL_WEBHOOK_LEADER_ELECTION_NAMESPACE", "default")
        .env("HTTPS_PROXY", azure.emulator.proxy_url().unwrap())
        .env("IDENTITY_ENDPOINT", azure.emulator.identity_endpoint().unwrap())
        .env("IDENTITY_HEADER", IDENTITY_HEADER)
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Collects the log. Returns the addresses of both listeners as soon as they are logged.
async fn read_log(log: ChildStderr, lines: &Arc<Mutex<Vec<String>>>) -> (SocketAddr, SocketAddr) {
    let mut log = BufReader::new(log).lines();
    let written = lines.clone();
    let (serving, mut addresses) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok(Some(line)) = log.next_line().await {
            if line.contains("\"message\":\"serving\"") {
                let entry: serde_json::Value = serde_json::from_str(&line).unwrap();
                let field = |name: &str| entry[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
                let _ = serving.send((field("listen_addr"), field("admin_addr")));
            }
            written.lock().unwrap().push(line);
        }
    });
    match addresses.recv().await {
        Some(addresses) => addresses,
        None => panic!("the webhook ended before it served: {:?}", lines.lock().unwrap()),
    }
}

fn plain_client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// The resident memory of a process, in bytes (VmRSS of proc(5)).
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

/// Whether a webhook with these flags creates its own certificate.
pub fn certifies_itself(flags: &[String]) -> bool {
    flags.iter().any(|flag| flag.starts_with("--tls-names"))
}

/// Writes a self-signed certificate for 127.0.0.1 and its key; returns the certificate.
pub fn write_certificate(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    certificate.pem()
}
