//! The cost of many pull secrets: memory, start and renewals.

mod report;

use crate::{
    crowd::{Asker, Crowd, PREPARING, account},
    ground::Baseline,
    process,
    report::{Part, median},
    tools::Tools,
};
use futures::{StreamExt, stream};
use std::time::{Duration, Instant};
use testkit::{
    namespace::TestNamespace,
    objects::{unnamed_pod, with_account},
    webhook::resident,
};

const MIB: f64 = 1024.0 * 1024.0;
/// Live Pods that reference each pull secret.
const PODS_EACH: usize = 5;
/// Only the machine limits the rate of renewals.
const FLAGS: [&str; 2] = ["--renewal-rate=1000", "--renewal-concurrency=32"];
/// The lifetime of a real token, and the average share of it after which the token is renewed.
const REAL_LIFE: Duration = Duration::from_secs(3 * 60 * 60);
const RENEWED_AT: f64 = 2.0 / 3.0 + 0.05;

/// A number of pull secrets, and the lifetime of their tokens. All Pods exist before the first renewal.
#[derive(Clone, Copy)]
pub struct Size {
    pub pull_secrets: usize,
    pub life: Duration,
}

/// The measurements of one size.
struct Found {
    size: Size,
    pods: usize,
    /// The memory with the pull secrets alone, and with the Pods.
    memory: (u64, u64),
    ready: Duration,
    renewed: u64,
    cpu: Duration,
    took: Duration,
    entra: u64,
    acr: u64,
    writes: u64,
}

pub async fn measure(tools: &Tools, sizes: &[Size], starts: usize) -> Vec<Part> {
    let (idle, idle_ready) = idle(starts).await;
    let (baseline_memory, baseline_ready) = idle_baseline(tools, starts).await;
    let mut all = Vec::new();
    for &size in sizes {
        all.push(Found::of(size).await);
    }
    vec![
        report::memory(idle, baseline_memory, &all),
        report::start((idle_ready, baseline_ready), starts, &all),
        report::renewal(&all),
    ]
}

/// Memory of a leader without objects, and the median duration of its starts.
async fn idle(starts: usize) -> (u64, Duration) {
    let mut crowd = Crowd::led(0, "3h", &FLAGS).await;
    let mut all = Vec::new();
    for _ in 0..starts {
        all.push(restart(&mut crowd).await);
    }
    (crowd.env.webhook.resident(), median(all))
}

/// The same of the baseline.
async fn idle_baseline(tools: &Tools, starts: usize) -> (u64, Duration) {
    let mut memory = 0;
    let mut all = Vec::new();
    for _ in 0..starts {
        let baseline = Baseline::start(tools).await;
        memory = resident(baseline.process());
        all.push(baseline.ready_after);
    }
    (memory, median(all))
}

/// Restarts the webhook and waits until it leads; returns the duration until it was ready.
async fn restart(crowd: &mut Crowd) -> Duration {
    assert!(
        crowd.env.webhook.terminate().await,
        "the webhook ends without an error"
    );
    crowd.env.restart_webhook().await;
    crowd.env.webhook.wait_until_leader().await;
    is_idle(crowd.env.webhook.process()).await;
    crowd.env.webhook.ready_after
}

/// Waits until a process has read all objects and is idle.
async fn is_idle(process: u32) {
    let mut before = process::cpu(process);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = process::cpu(process);
        if now - before < Duration::from_millis(10) {
            return;
        }
        before = now;
    }
}

impl Found {
    async fn of(size: Size) -> Self {
        let life = format!("{}s", size.life.as_secs());
        let mut crowd = Crowd::led(size.pull_secrets, &life, &FLAGS).await;
        let asker = crowd.asker(&crowd.env.webhook);
        each(size.pull_secrets, PREPARING, async |n| admit(&asker, n).await).await;
        restart(&mut crowd).await;
        let alone = crowd.env.webhook.resident();
        let pods = PODS_EACH * size.pull_secrets;
        let namespace = &crowd.env.team_a.namespace;
        each(pods, PREPARING, async |n| {
            create(namespace, n % size.pull_secrets).await
        })
        .await;
        let ready = restart(&mut crowd).await;
        let with_pods = crowd.env.webhook.resident();
        let before = Counts::of(&crowd).await;
        assert_eq!(
            before.renewed, 0,
            "all Pods exist before the first renewal: tokens need a longer lifetime"
        );
        Self::renew(&crowd, size, pods, (alone, with_pods), ready, before).await
    }

    async fn renew(
        crowd: &Crowd,
        size: Size,
        pods: usize,
        memory: (u64, u64),
        ready: Duration,
        idle: Counts,
    ) -> Self {
        let until = async |renewed: u64| {
            let limit = Instant::now() + 2 * size.life;
            loop {
                let now = Counts::of(crowd).await;
                if now.renewed >= renewed {
                    return now;
                }
                assert!(Instant::now() < limit, "{} of {renewed} are renewed", now.renewed);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let first = until(1).await;
        let last = until(size.pull_secrets as u64).await;
        Self {
            size,
            pods,
            memory,
            ready,
            renewed: last.renewed,
            cpu: (last.cpu - first.cpu).div_f64((last.renewed - first.renewed) as f64),
            took: last.at - first.at,
            entra: last.entra - idle.entra,
            acr: last.acr - idle.acr,
            writes: last.writes - idle.writes,
        }
    }

    fn each(&self, number: u64) -> f64 {
        number as f64 / self.renewed as f64
    }
}

/// The counts of the webhook and of the API server.
struct Counts {
    at: Instant,
    cpu: Duration,
    renewed: u64,
    entra: u64,
    acr: u64,
    writes: u64,
}

impl Counts {
    async fn of(crowd: &Crowd) -> Self {
        let (_, webhook) = crowd.env.webhook.admin_get("/metrics").await;
        let request = http::Request::get("/metrics")
            .body(Vec::new())
            .expect("the request is valid");
        let api_server = crowd
            .env
            .client
            .request_text(request)
            .await
            .expect("the API server returns its metrics");
        let hop = |name: &str| {
            sum(
                &webhook,
                "acr_pull_webhook_upstream_requests_total",
                &[&format!("hop=\"{name}\"")],
            )
        };
        let write = |resource: &str, verb: &str| {
            let labels = [format!("resource=\"{resource}\""), format!("verb=\"{verb}\"")];
            sum(
                &api_server,
                "apiserver_request_total",
                &labels.each_ref().map(String::as_str),
            )
        };
        let writes = ["POST", "PUT", "PATCH", "APPLY"]
            .iter()
            .flat_map(|verb| [write("secrets", verb), write("acrpullsecrets", verb)])
            .sum();
        Self {
            at: Instant::now(),
            cpu: process::cpu(crowd.env.webhook.process()),
            renewed: sum(
                &webhook,
                "acr_pull_webhook_renewals_total",
                &["outcome=\"Renewed\""],
            ),
            entra: hop("Entra"),
            acr: hop("RegistryExchange"),
            writes,
        }
    }
}

/// The sum of a metric over all series with these labels.
fn sum(metrics: &str, name: &str, labels: &[&str]) -> u64 {
    let lines = metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
    let chosen = lines.filter(|(all, _)| labels.iter().all(|label| all.contains(label)));
    chosen
        .map(|(_, value)| value.trim().parse::<f64>().expect("a metric is a number") as u64)
        .sum()
}

/// Calls a function for each number, with some calls at the same time.
async fn each(number: usize, at_a_time: usize, work: impl AsyncFn(usize)) {
    let work = &work;
    stream::iter(0..number)
        .map(async |n| work(n).await)
        .buffer_unordered(at_a_time)
        .collect::<()>()
        .await;
}

async fn admit(asker: &Asker, n: usize) {
    assert!(asker.ask(n).await.complete, "the token came in time");
}

/// Creates a Pod of this identity without a scheduler, as there is no node.
async fn create(namespace: &TestNamespace, n: usize) {
    let mut pod = with_account(unnamed_pod("contoso"), &account(n));
    pod.spec.as_mut().expect("the Pod has a spec").scheduler_name = Some("none".to_owned());
    namespace.create_pod(&pod).await;
}
