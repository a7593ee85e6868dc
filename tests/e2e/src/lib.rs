//! What the end-to-end tests share: the cluster, its Azure, and teams in namespaces.
//!
//! `make e2e` deploys everything and runs them; `make help` tells the variables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

pub mod azure;
pub mod load;
pub mod team;
pub mod webhook;

use kube::{Client, Config};
use std::{path::Path, process::Stdio, time::Duration};
use tokio::process::Command;

/// A client for the cluster of KUBECONFIG.
pub async fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    assert!(
        std::env::var_os("KUBECONFIG").is_some(),
        "KUBECONFIG names no cluster: run these tests by `make e2e`, which brings one and deploys to it"
    );
    let mut config = Config::infer().await.expect("the kubeconfig can be read");
    config.proxy_url = None;
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Waits until `check` gives something, for at most two minutes.
pub async fn eventually<T>(what: &str, check: impl AsyncFn() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            if let Some(found) = check().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("within two minutes: {what}"))
}

/// Runs one of the scripts of this folder.
pub async fn script(name: &str, arguments: impl IntoIterator<Item = String>) {
    let status = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .args(arguments)
        .stdin(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success(), "tests/e2e/{name} says above what is wrong");
}
