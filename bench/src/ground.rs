//! Where the webhook and the floor are measured side by side: one control plane, one Azure, three namespaces alike but for
//! whom the API server asks about their Pods.

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
    control_plane::signal,
    env::TestEnv,
    eventually,
    objects::dry_run,
    webhook::{Webhook, write_certificate},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// The namespace about whose Pods nobody is asked.
pub const NOBODYS: &str = "nobodys";
/// The one about whose Pods the floor is.
pub const FLOORS: &str = "floors";

pub struct Ground {
    pub env: TestEnv,
    pub floor: Floor,
    files: TempDir,
}

/// A running floor; it ends with this value.
pub struct Floor {
    pub url: String,
    pub ca_pem: String,
    /// From its start until it said where it is.
    pub ready_after: Duration,
    child: Child,
    files: TempDir,
}

/// A server, and all that is needed to ask it.
pub struct Asked {
    url: String,
    ca: PathBuf,
    body: PathBuf,
    process: u32,
}

// === impl Ground ===

impl Ground {
    /// Everything is warm: the webhook has minted the one pull secret, and the floor has seen its review.
    pub async fn new(tools: &Tools) -> Self {
        let env = TestEnv::leading(&FLAGS, |_| ()).await;
        let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
        let floor = Floor::start(tools).await;
        env.create_namespace(NOBODYS, "nobody", env.team_a.client_id)
            .await;
        env.create_namespace(FLOORS, "floor", env.team_a.client_id).await;
        env.register_at(Some("floor"), "floor", &floor.url, Some(&floor.ca_pem))
            .await;
        env.team_a.namespace.create_pod(&pod()).await;
        let pods = Api::<Pod>::namespaced(env.client.clone(), FLOORS);
        eventually("the API server asks the floor", async || {
            pods.create(&dry_run(), &pod())
                .await
                .expect("a Pod can be created");
            floor.captured().exists().then_some(())
        })
        .await;
        Self { env, floor, files }
    }

    /// The review that an API server sends about the Pod in this namespace.
    pub fn review(&self, namespace: &str) -> String {
        let captured = std::fs::read_to_string(self.floor.captured()).expect("the floor has written it");
        captured.replace(&format!("\"{FLOORS}\""), &format!("\"{namespace}\""))
    }

    /// A floor, to be asked.
    pub fn ask_floor(&self, floor: &Floor) -> Asked {
        self.asked("floor", &floor.url, &floor.ca_pem, floor.process(), FLOORS)
    }

    /// A webhook, to be asked.
    pub fn ask(&self, webhook: &Webhook) -> Asked {
        self.asked(
            "webhook",
            &webhook.url(),
            &webhook.ca_pem,
            webhook.process(),
            self.env.team_a.namespace.name(),
        )
    }

    fn asked(&self, name: &str, url: &str, ca_pem: &str, process: u32, namespace: &str) -> Asked {
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

// === impl Floor ===

impl Floor {
    /// Starts one.
    pub async fn start(tools: &Tools) -> Self {
        Self::start_as(Command::new(&tools.floor)).await
    }

    /// Starts one by a command that runs its program.
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
            .expect("the floor can be started");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = lines
            .next_line()
            .await
            .expect("the floor can be read")
            .expect("the floor says where it is");
        let address = line
            .strip_prefix("listening ")
            .expect("the floor says where it listens");
        Self {
            url: format!("https://{address}/mutate"),
            ca_pem,
            ready_after: began.elapsed(),
            child,
            files,
        }
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Ends it, and waits until it has.
    pub async fn terminate(&mut self) {
        signal(self.process(), "TERM").await;
        self.child.wait().await.expect("it ends");
    }

    fn captured(&self) -> PathBuf {
        self.files.path().join("review.json")
    }
}

// === impl Asked ===

impl Asked {
    /// What oha needs to ask this server, in files of this folder.
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

    /// For a load.
    pub fn target(&self) -> Target<'_> {
        Target {
            url: &self.url,
            ca: &self.ca,
            body: &self.body,
            process: self.process,
        }
    }

    /// The body of each request.
    pub fn body(&self) -> &Path {
        &self.body
    }
}
