//! The webhook's own binary, as a process.

use crate::{
    control_plane::{self, ControlPlane},
    site::{IDENTITY_HEADER, eventually},
};
use azure_emulator::Emulator;
use rcgen::{CertificateParams, KeyPair, SanType};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A running webhook; it ends with this value.
pub struct Webhook {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub ca_pem: String,
    log: Arc<Mutex<Vec<String>>>,
    child: Child,
    /// Its working folder, with `tls.crt` and `tls.key`.
    pub files: TempDir,
}

/// The program: cargo tells the tests of its package where it is, and whoever else starts it does the same.
fn program() -> std::ffi::OsString {
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
        Self::launch(Command::new(program()), kubeconfig, azure, flags).await
    }

    /// The same on this core alone.
    pub async fn start_on_core(core: &str, kubeconfig: &Path, azure: &Emulator, flags: &[String]) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(program());
        Self::launch(command, kubeconfig, azure, flags).await
    }

    async fn launch(mut command: Command, kubeconfig: &Path, azure: &Emulator, flags: &[String]) -> Self {
        let files = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
        let ca_pem = write_certificate(files.path());
        std::fs::write(files.path().join("azure-ca.crt"), azure.ca_pem()).unwrap();
        let certificate: &[&str] = match certifies_itself(flags) {
            true => &[],
            false => &["--tls-cert=tls.crt", "--tls-key=tls.key"],
        };
        let mut child = command
            .args(["serve", "--listen-addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0"])
            .args(["--extra-ca-file=azure-ca.crt"])
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
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = log.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                written.lock().unwrap().push(line);
            }
        });
        let find = |field: &str| {
            let lines = log.lock().unwrap();
            lines.iter().find_map(|line| {
                let entry: serde_json::Value = serde_json::from_str(line).ok()?;
                (entry["message"] == "serving").then(|| entry[field].as_str()?.parse().ok())?
            })
        };
        let address = eventually("the webhook says where it listens", async || find("listen_addr")).await;
        let admin = find("admin_addr").unwrap();
        let webhook = Self {
            address,
            admin,
            ca_pem,
            log,
            child,
            files,
        };
        eventually("the webhook is ready", async || {
            (webhook.admin_get("/readyz").await.0 == 200).then_some(())
        })
        .await;
        webhook
    }

    /// A path of the admin listener: status and body.
    pub async fn admin_get(&self, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        match client.get(format!("http://{}{path}", self.admin)).send().await {
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

    /// The URL that the API server calls.
    pub fn url(&self) -> String {
        format!("https://{}/mutate", self.address)
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
