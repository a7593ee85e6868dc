//! Load by oha, an independent program.

use crate::{process, tools::Tools};
use serde::Deserialize;
use std::{path::Path, process::Stdio, time::Duration};
use tokio::process::Command;

/// The shape of a load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Persistent connections with one request at a time.
    pub connections: usize,
    /// The end of the load.
    pub lasts: Lasts,
    /// Requests per second over all connections. Without it, as many as the server answers.
    pub rate: Option<u32>,
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Lasts {
    For(Duration),
    Requests(usize),
}

/// The server of a load.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub url: &'a str,
    /// The authority of the server's certificate, in PEM.
    pub ca: &'a Path,
    /// The body of each request.
    pub body: &'a Path,
    /// The process id of the server.
    pub process: u32,
}

/// The measurements of a load.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub took: Duration,
    /// The CPU time of the server for each request.
    pub cpu: Duration,
    pub p50: Duration,
    pub p99: Duration,
}

/// A part of the JSON that oha prints.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Printed {
    summary: Summary,
    latency_percentiles: Percentiles,
    status_code_distribution: std::collections::BTreeMap<String, u64>,
    error_distribution: std::collections::BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct Summary {
    total: f64,
}

#[derive(Deserialize)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

/// Puts the load on the target. Every request must be answered with 200.
pub async fn load(tools: &Tools, target: Target<'_>, load: Load) -> Seen {
    let before = process::cpu(target.process);
    let output = command(tools, target, load)
        .env_remove("HTTPS_PROXY")
        .env_remove("https_proxy")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("taskset and oha can be started");
    let cpu = process::cpu(target.process) - before;
    assert!(
        output.status.success(),
        "oha: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let printed: Printed = serde_json::from_slice(&output.stdout).expect("oha prints JSON");
    let answered = printed
        .status_code_distribution
        .get("200")
        .copied()
        .unwrap_or_default();
    assert!(
        printed.error_distribution.is_empty() && printed.status_code_distribution.len() == 1 && answered > 0,
        "not every request was answered with 200: {:?}, {:?}",
        printed.status_code_distribution,
        printed.error_distribution
    );
    Seen {
        took: Duration::from_secs_f64(printed.summary.total),
        cpu: cpu.div_f64(answered as f64),
        p50: Duration::from_secs_f64(printed.latency_percentiles.p50),
        p99: Duration::from_secs_f64(printed.latency_percentiles.p99),
    }
}

/// The command of oha, on its own core.
fn command(tools: &Tools, target: Target<'_>, load: Load) -> Command {
    let mut command = Command::new("taskset");
    command
        .args(["-c", CLIENTS_CORE])
        .arg(&tools.oha)
        .args([
            "--no-tui",
            "--output-format",
            "json",
            "--http-version",
            "1.1",
            "--method",
            "POST",
        ])
        .args(["-T", "application/json", "-c", &load.connections.to_string()])
        .arg("--cacert")
        .arg(target.ca)
        .arg("-D")
        .arg(target.body);
    match load.lasts {
        // oha waits for open requests, which would count as failures.
        Lasts::For(time) => command.args(["-w", "-z", &format!("{}ms", time.as_millis())]),
        Lasts::Requests(number) => command.args(["-n", &number.to_string()]),
    };
    if let Some(rate) = load.rate {
        command.args(["-q", &rate.to_string()]);
    }
    command.arg(target.url);
    command
}

/// The core of the client. The server has the other core.
const CLIENTS_CORE: &str = "1";
