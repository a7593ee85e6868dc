//! Helm, built from its Go module.

use crate::{NAME, manifests::Manifests, program::Run, repository};
use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};
use tempfile::TempDir;
use testkit::programs::built_by;

static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| built_by("tests/chart/build.sh"));

/// The folder of the chart.
pub fn chart() -> PathBuf {
    repository("deploy/chart")
}

/// Helm with folders of its own, independent of the user's configuration.
pub fn helm(verb: &str) -> Run {
    let files = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    let mut run = Run::new(&*PROGRAM).arg(verb);
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        run = run.env(name, files.path());
    }
    run.files(files)
}

/// `helm VERB` of the release with the chart of this repository.
pub fn release(verb: &str) -> Run {
    helm(verb).arg(NAME).arg(chart()).args(["--namespace", NAME])
}

/// `--set` with each of these values.
pub fn set<'a>(values: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let flags = values.into_iter().flat_map(|value| ["--set", value]);
    flags.map(str::to_owned).collect()
}

/// `--values` with a file.
pub fn values_file(file: impl AsRef<Path>) -> Vec<String> {
    vec!["--values".to_owned(), file.as_ref().to_str().unwrap().to_owned()]
}

/// The manifests of the chart with these flags.
pub async fn render<S: AsRef<std::ffi::OsStr>>(flags: impl IntoIterator<Item = S>) -> Manifests {
    Manifests::parse(&release("template").args(flags).succeed().await)
}

/// The message of the chart that cannot be rendered with these flags.
pub async fn refused<S: AsRef<std::ffi::OsStr>>(flags: impl IntoIterator<Item = S>) -> String {
    release("template").args(flags).fail().await
}
