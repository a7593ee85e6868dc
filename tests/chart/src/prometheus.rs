//! Prometheus and its rules.

use crate::{program::Run, repository};
use serde_json::Value;
use std::{path::PathBuf, sync::LazyLock};
use testkit::programs::built_by;

static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| built_by("tests/prometheus/build.sh"));

/// promtool, built from the Go module of Prometheus.
pub fn promtool() -> Run {
    Run::new(PROGRAMS.join("promtool"))
}

/// The file with the alerts.
pub fn alerts_file() -> PathBuf {
    repository("deploy/chart/files/alerts.yaml")
}

/// The alerts of the chart.
pub fn alerts() -> Vec<Value> {
    let groups: Value = yaml(alerts_file());
    let groups = groups["groups"].as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap())
        .cloned()
        .collect()
}

/// The dashboard of the chart.
pub fn dashboard() -> Value {
    let text = std::fs::read_to_string(repository("deploy/chart/files/dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The content of a YAML file.
pub fn yaml(path: PathBuf) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
