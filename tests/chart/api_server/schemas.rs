//! Every valid row of values renders objects that Kubernetes accepts. The API server itself validates, without persisting:
//! it knows more than its schemas, such as the types in CEL expressions. No other test may change the objects meanwhile,
//! because the API server merges them, so this test has a control plane of its own.

use super::cluster::Cluster;
use acr_pull_webhook::check::OLDEST_MINOR;
use chart::{
    NAME,
    helm::{render, set},
    values::{VALID, every_authority, text},
};
use std::env;
use testkit::control_plane::ControlPlane;

const DRY_RUN: &str = "apply --server-side --force-conflicts --dry-run=server --validate=strict --filename -";

/// The flags of each row.
fn rows(cluster: &Cluster) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = VALID.iter().map(|row| set(row.iter().copied())).collect();
    let mut authorities = every_authority();
    authorities.extend(text(
        "certificates.provided.caBundle",
        &cluster.control_plane.authority(),
    ));
    rows.push(authorities);
    rows
}

/// With `KUBERNETES=oldest`, this is the oldest supported release, and otherwise the newest one.
#[testkit::test]
async fn kubernetes_accepts_every_valid_row_of_values() {
    let cluster = Cluster::of(&ControlPlane::start_own().await).await;
    if env::var("KUBERNETES").as_deref() == Ok("oldest") {
        let version = cluster.client.apiserver_version().await.unwrap();
        assert_eq!(version.minor, OLDEST_MINOR.to_string());
    }
    for namespace in [NAME, "other", "monitoring"] {
        cluster.ensure_namespace(namespace).await;
    }
    let rows = rows(&cluster);
    assert!(rows.len() > 30, "{} rows", rows.len());
    for mut row in rows {
        row.push("--no-hooks".to_owned());
        let manifests = render(&row).await.without_foreign_kinds();
        let applied = cluster.kubectl(DRY_RUN).input(manifests).outcome().await;
        applied.unwrap_or_else(|error| panic!("with {row:?}: {error}"));
    }
}
