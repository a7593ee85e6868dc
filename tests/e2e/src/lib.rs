//! What the end-to-end tests share: the cluster, its Azure, and a namespace for each scenario.
//!
//! `make e2e` deploys everything and runs the tests; `make help` lists the variables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod azure;
pub mod load;
pub mod scenario;
pub mod webhook;

use kube::{Client, Config};
use std::{process::Stdio, time::Duration};
use testkit::repository::root;
use tokio::process::Command;

/// Kubelets retry a pull with a back-off, and webhooks are rolled out one replica after the other.
const NOMINAL_LIMIT: Duration = Duration::from_secs(120);

/// A client for the cluster of KUBECONFIG, which `run.sh` must have chosen: the tests change and remove what is installed
/// there.
pub async fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let [kubeconfig, chosen] = ["KUBECONFIG", "CLUSTER_CHOSEN"].map(std::env::var_os);
    assert!(
        kubeconfig.is_some() && kubeconfig == chosen,
        "run these tests by `make e2e`, which chooses a cluster that may be changed and deploys to it"
    );
    let mut config = Config::infer().await.expect("the kubeconfig can be read");
    config.proxy_url = None;
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Waits until `check` returns a value, as long as a real node may need.
pub async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    testkit::eventually_within(NOMINAL_LIMIT, what, check).await
}

/// Runs one of the scripts in this folder.
pub async fn script(name: &str, arguments: impl IntoIterator<Item = String>) {
    let status = Command::new(root().join("tests/e2e").join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success(), "tests/e2e/{name} failed; its message is above");
}
