//! The environment in which webhook and baseline are compared: one control plane, one Azure, and three equal
//! namespaces, whose Pods the API server sends to the webhook, to the baseline, or nowhere.

use crate::{
    load::Target,
    request::{FLAGS, pod},
    tools::Tools,
};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use testkit::{
    env::TestEnv,
    eventually,
    objects::dry_run,
    process::signal,
    webhook::{Webhook, write_certificate},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The namespace whose Pods are sent nowhere.
pub const NO_WEBHOOK_NAMESPACE: &str = "no-webhook";
/// The namespace whose Pods are sent to the baseline.
pub const BASELINE_NAMESPACE: &str = "baselines";

pub struct Ground {
    pub env: TestEnv,
    pub baseline: Baseline,
    files: TempDir,
}

/// A running baseline. The process ends with this value.
pub struct Baseline {
    pub url: String,
    pub ca_pem: String,
    /// From the start of the process until it printed its address.
    pub ready_after: Duration,
    child: Child,
    files: TempDir,
}

/// A server, and the parts of requests to it.
pub struct Asked {
    url: String,
    ca: PathBuf,
    body: PathBuf,
    process: u32,
}

impl Ground {
    /// Both are warm: the webhook has issued the pull secret, and the baseline has received its review.
    pub async fn new(tools: &Tools) -> Self {
        let env = TestEnv::leading_with_default_periods(&FLAGS).await;
        let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
        let baseline = Baseline::start(tools).await;
        env.create_namespace(NO_WEBHOOK_NAMESPACE, "no-webhook", env.team_a.client_id)
            .await;
        env.create_namespace(BASELINE_NAMESPACE, "baseline", env.team_a.client_id)
            .await;
        env.register_at(
            Some("baseline"),
            "baseline",
            &baseline.url,
            Some(&baseline.ca_pem),
        )
        .await;
        env.team_a.namespace.create_pod(&pod()).await;
        let pods = Api::<Pod>::namespaced(env.client.clone(), BASELINE_NAMESPACE);
        eventually("the API server asks the baseline", async || {
            pods.create(&dry_run(), &pod())
                .await
                .expect("a Pod can be created");
            baseline.captured().exists().then_some(())
        })
        .await;
        Self { env, baseline, files }
    }

    /// The review that an API server sends about the Pod in this namespace.
    pub fn review(&self, namespace: &str) -> String {
        let captured =
            std::fs::read_to_string(self.baseline.captured()).expect("the baseline has written the review");
        captured.replace(&format!("\"{BASELINE_NAMESPACE}\""), &format!("\"{namespace}\""))
    }

    /// The requests to a baseline.
    pub fn ask_baseline(&self, baseline: &Baseline) -> Asked {
        self.asked(
            "baseline",
            &baseline.url,
            &baseline.ca_pem,
            baseline.process(),
            BASELINE_NAMESPACE,
        )
    }

    /// The requests to a webhook.
    pub fn ask(&self, webhook: &Webhook) -> Asked {
        self.asked(
            "webhook",
            &webhook.url(),
            &webhook.ca_pem,
            webhook.process(),
            self.env.team_a.namespace.name(),
        )
    }

    /// The requests about Pods in this namespace to the server at this URL.
    pub fn asked(&self, name: &str, url: &str, ca_pem: &str, process: u32, namespace: &str) -> Asked {
        Asked::new(
            self.files.path(),
            name,
            url,
            ca_pem,
            process,
            &self.review(namespace),
        )
    }
}

impl Baseline {
    /// Starts a baseline.
    pub async fn start(tools: &Tools) -> Self {
        Self::start_as(Command::new(&tools.baseline)).await
    }

    /// Starts a baseline by a command that runs its program.
    pub async fn start_as(mut command: Command) -> Self {
        let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
        let ca_pem = write_certificate(files.path());
        let began = Instant::now();
        let mut child = command
            .args([
                "--tls-cert",
                "tls.crt",
                "--tls-key",
                "tls.key",
                "--capture",
                "review.json",
            ])
            .current_dir(files.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the baseline can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        let line = lines
            .next_line()
            .await
            .expect("the output can be read")
            .expect("the baseline prints its address");
        let address = line
            .strip_prefix("listening ")
            .expect("the line contains the address");
        Self {
            url: format!("https://{address}/mutate"),
            ca_pem,
            ready_after: began.elapsed(),
            child,
            files,
        }
    }

    /// The process id.
    pub fn process(&self) -> u32 {
        self.child.id().expect("the baseline runs")
    }

    /// Terminates the process, and waits for its end.
    pub async fn terminate(&mut self) {
        signal(self.process(), "TERM").await;
        self.child.wait().await.expect("the baseline ends");
    }

    fn captured(&self) -> PathBuf {
        self.files.path().join("review.json")
    }
}

impl Asked {
    /// Writes the files for oha to this folder.
    pub fn new(folder: &Path, name: &str, url: &str, ca_pem: &str, process: u32, body: &str) -> Self {
        let file = |suffix: &str, content: &str| {
            let path = folder.join(format!("{name}-{process}.{suffix}"));
            std::fs::write(&path, content).expect("a file can be written");
            path
        };
        Self {
            url: format!("{url}?timeout=10s"),
            ca: file("crt", ca_pem),
            body: file("json", body),
            process,
        }
    }

    /// The target of a load.
    pub fn target(&self) -> Target<'_> {
        Target {
            url: &self.url,
            ca: &self.ca,
            body: &self.body,
            process: self.process,
        }
    }

    /// The request of a client without load, which keeps its connection from one copy of the request to the next.
    pub fn request(&self) -> reqwest::RequestBuilder {
        let ca = std::fs::read(&self.ca).expect("the file was written before");
        let body = std::fs::read(&self.body).expect("the file was written before");
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca).expect("the authority is a certificate")])
            .build()
            .expect("a client can be built");
        client
            .post(&self.url)
            .header("content-type", "application/json")
            .body(body)
    }
}
