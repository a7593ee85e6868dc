//! A peer: the webhook of azure-workload-identity, which Microsoft maintains. It is written in Go with
//! controller-runtime, mutates Pods of annotated service accounts, and reads the service account from memory, too.

use crate::{
    ground::{Asked, BASELINE_NAMESPACE, Ground},
    hot::{CORE, PACE, Pairs, Rounds},
    report::{Part, Row, bytes, time},
    tools::{Tools, on_core},
};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Stdio,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use testkit::{
    eventually,
    webhook::{program, resident, write_certificate},
};
use tokio::process::Child;

/// The port of controller-runtime. The peer has no flag for it.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9443);
const NAME: &str = "azure-workload-identity";

/// A running peer. The process ends with this value.
struct Peer {
    asked: Asked,
    /// From the start of the process until its first answer.
    ready_after: Duration,
    _child: Child,
    _files: TempDir,
}

pub async fn measure(tools: &Tools, ground: &Ground, rounds: Rounds) -> Part {
    let peer = Peer::start(tools, ground).await;
    let webhook = ground.env.replica_by(on_core(CORE, program())).await;
    let asked = ground.ask(&webhook);
    let resident = || [resident(peer.asked.target().process), webhook.resident()];
    let idle = resident();
    let mut all = [(1, None), (16, None), (4, Some(PACE))]
        .map(|(connections, rate)| Pairs::new(NAME, connections, rate));
    for pairs in &mut all {
        for _ in 0..rounds.number {
            pairs.add_round(tools, &peer.asked, &asked, rounds.each).await;
        }
    }
    let [one, many, paced] = all;
    let loaded = resident();
    let memory = |what: &str, [of_peer, of_webhook]: [u64; 2]| Row {
        what: format!("memory, {what}"),
        webhook: bytes(of_webhook as f64),
        reference: format!("{NAME} {}", bytes(of_peer as f64)),
        ratio: of_webhook as f64 / of_peer as f64,
        target: None,
    };
    Part {
        title: "A peer",
        how: format!(
            "{NAME}, a mutating webhook for Pods in Go, and the webhook take turns as above, with the same review. The peer adds \
             environment variables and a volume to the Pod.",
        ),
        rows: vec![
            one.row("server CPU per request, 1 connection", |seen| seen.cpu, None),
            one.row("latency p50, 1 connection", |seen| seen.p50, None),
            one.row("latency p99, 1 connection", |seen| seen.p99, None),
            many.row("server CPU per request, 16 connections", |seen| seen.cpu, None),
            paced.row(
                "server CPU per request, 50 requests a second",
                |seen| seen.cpu,
                None,
            ),
            memory("before the first request", idle),
            memory("after the requests", loaded),
            Row {
                what: "until ready; the peer until its first answer".to_owned(),
                webhook: time(webhook.ready_after),
                reference: format!("{NAME} {}", time(peer.ready_after)),
                ratio: webhook.ready_after.div_duration_f64(peer.ready_after),
                target: None,
            },
        ],
        curves: Vec::new(),
    }
}

impl Peer {
    async fn start(tools: &Tools, ground: &Ground) -> Self {
        drop(TcpListener::bind(ADDRESS).unwrap_or_else(|error| {
            panic!("{NAME} listens on {ADDRESS}, which another program uses: stop that program ({error})")
        }));
        let files = TempDir::with_prefix("acr-pull-webhook-bench-").expect("a temporary folder can be made");
        let ca_pem = write_certificate(files.path());
        let began = Instant::now();
        let child = on_core(CORE, tools.peer())
            .arg("--webhook-cert-dir")
            .arg(files.path())
            // "0" disables the listener.
            .args([
                "--disable-cert-rotation",
                "--health-addr=0",
                "--metrics-addr=0",
                "--log-level=info",
            ])
            .env("KUBECONFIG", ground.env.cluster.kubeconfig())
            .env("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000000")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the peer can be started");
        let process = child.id().expect("the peer runs");
        let asked = ground.asked(
            NAME,
            &format!("https://{ADDRESS}/mutate-v1-pod"),
            &ca_pem,
            process,
            BASELINE_NAMESPACE,
        );
        let request = asked.request();
        eventually("the peer answers", async || {
            let reply = request.try_clone()?.send().await.ok()?;
            let text = reply.text().await.ok()?;
            text.contains("\"allowed\":true").then_some(())
        })
        .await;
        Self {
            asked,
            ready_after: began.elapsed(),
            _child: child,
            _files: files,
        }
    }
}
