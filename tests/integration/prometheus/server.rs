//! A Prometheus, built from its Go module, as a process.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{net::SocketAddr, ops::Range, path::Path, process::Stdio};
use tempfile::TempDir;
use testkit::{eventually, programs::built_by, repository::root};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A series of a range.
pub struct Series {
    pub labels: Value,
    /// The Unix time and the value of each point.
    pub points: Vec<(f64, f64)>,
}

/// A running Prometheus. The process ends with this value.
pub struct Prometheus {
    address: String,
    /// Configuration and data.
    folder: TempDir,
    client: reqwest::Client,
    _child: Child,
}

impl Prometheus {
    /// Starts a Prometheus with the alerts of the chart, which scrapes the API server and these replicas every second.
    pub async fn start(kubeconfig: &Path, replicas: &[SocketAddr]) -> Self {
        let program = tokio::task::spawn_blocking(|| built_by("tests/prometheus/build.sh"));
        let program = program.await.unwrap().join("prometheus");
        let folder = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
        write_config(kubeconfig, folder.path(), replicas);
        // The kernel kills Prometheus if the test process is killed, which then cannot do so itself.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(["--web.listen-address=127.0.0.1:0", "--web.enable-lifecycle"])
            .arg(format!(
                "--config.file={}",
                folder.path().join("config.yaml").display()
            ))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut lines = Vec::new();
        let address = loop {
            let line = log.next_line().await.unwrap();
            let line = line.unwrap_or_else(|| panic!("Prometheus ended: {}", lines.join("\n")));
            if let Some((_, rest)) = line.split_once("Listening on\" component=web address=") {
                break rest.trim().to_owned();
            }
            lines.push(line);
        };
        // A full pipe would stop Prometheus.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self {
            address,
            folder,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            _child: child,
        }
    }

    /// Scrapes these replicas instead.
    pub async fn scrape(&self, kubeconfig: &Path, replicas: &[SocketAddr]) {
        write_config(kubeconfig, self.folder.path(), replicas);
        let url = format!("http://{}/-/reload", self.address);
        let reloaded = self.client.post(url).send().await.unwrap();
        assert_eq!(reloaded.status(), 200, "{}", reloaded.text().await.unwrap());
    }

    /// The series that a query returns now, with their values.
    pub async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let answer = self.get("query", &[("query", query)]).await;
        let result = answer["data"]["result"].as_array().unwrap().iter();
        let series = result.map(|series| {
            let value = series["value"][1].as_str().unwrap();
            (series["metric"].clone(), value.parse().unwrap())
        });
        series.collect()
    }

    /// The series that a query returns for each second of this range of Unix time. Values that are not numbers are left
    /// out.
    pub async fn range(&self, query: &str, range: &Range<f64>) -> Vec<Series> {
        let (start, end) = (range.start.to_string(), range.end.to_string());
        let range = [
            ("query", query),
            ("start", &*start),
            ("end", &*end),
            ("step", "1"),
        ];
        let answer = self.get("query_range", &range).await;
        let result = answer["data"]["result"].as_array().unwrap().iter();
        let series = result.map(|series| {
            let points = series["values"].as_array().unwrap().iter().map(|point| {
                let value: f64 = point[1].as_str().unwrap().parse().unwrap();
                (point[0].as_f64().unwrap(), value)
            });
            Series {
                labels: series["metric"].clone(),
                points: points.filter(|point| point.1.is_finite()).collect(),
            }
        });
        series.collect()
    }

    /// The value of a query that returns one series, if it returns one now.
    pub async fn value(&self, query: &str) -> Option<f64> {
        match self.query(query).await.as_slice() {
            [] => None,
            [(_, value)] => Some(*value),
            more => panic!("{query}: {more:?}"),
        }
    }

    /// Waits until a query returns one series with this value.
    pub async fn wait_for_value(&self, query: &str, expected: f64) {
        eventually(&format!("{query} is {expected}"), async || {
            (self.value(query).await? == expected).then_some(())
        })
        .await;
    }

    /// The alerting rules, with their state and health.
    pub async fn rules(&self) -> Vec<Value> {
        let answer = self.get("rules", &[]).await;
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        groups
            .flat_map(|group| group["rules"].as_array().unwrap())
            .cloned()
            .collect()
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let answer = self.client.get(url).query(parameters).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer
    }
}

/// The part of a kubeconfig that leads to the API server.
#[derive(Deserialize)]
struct Access {
    clusters: [ClusterEntry; 1],
    users: [UserEntry; 1],
}

#[derive(Deserialize)]
struct ClusterEntry {
    cluster: ClusterAccess,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterAccess {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct UserEntry {
    user: Credentials,
}

#[derive(Deserialize)]
struct Credentials {
    token: String,
}

impl Access {
    fn read(kubeconfig: &Path) -> Self {
        serde_saphyr::from_str(&std::fs::read_to_string(kubeconfig).unwrap()).unwrap()
    }
}

/// Writes the configuration, and the administrator's token, by which Prometheus reads the metrics of the API server.
fn write_config(kubeconfig: &Path, folder: &Path, replicas: &[SocketAddr]) {
    let access = Access::read(kubeconfig);
    let ([cluster], [user]) = (access.clusters, access.users);
    let authority = STANDARD
        .decode(cluster.cluster.certificate_authority_data)
        .unwrap();
    std::fs::write(folder.join("ca.crt"), authority).unwrap();
    std::fs::write(folder.join("token"), user.user.token).unwrap();
    let replicas: Vec<_> = replicas.iter().map(SocketAddr::to_string).collect();
    let alerts = root()
        .canonicalize()
        .unwrap()
        .join("deploy/chart/files/alerts.yaml");
    let config = json!({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [alerts],
        "scrape_configs": [
            {"job_name": "acr-pull-webhook", "static_configs": [{"targets": replicas}]},
            {
                "job_name": "apiserver",
                "scheme": "https",
                "static_configs": [{"targets": [cluster.cluster.server.strip_prefix("https://").unwrap()]}],
                "tls_config": {"ca_file": "ca.crt"},
                "authorization": {"credentials_file": "token"},
            },
        ],
    });
    std::fs::write(folder.join("config.yaml"), config.to_string()).unwrap();
}
