//! Helm, built from its Go module.

use crate::{NAME, manifests::Manifests, program::Run, repository};
use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};
use tempfile::TempDir;
use testkit::programs::built_with;

/// A major version of Helm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Three,
    Four,
}

impl Version {
    pub const ALL: [Self; 2] = [Self::Three, Self::Four];

    fn program(self) -> &'static Path {
        static THREE: LazyLock<PathBuf> = LazyLock::new(|| built("3"));
        static FOUR: LazyLock<PathBuf> = LazyLock::new(|| built("4"));
        match self {
            Self::Three => &THREE,
            Self::Four => &FOUR,
        }
    }
}

fn built(version: &str) -> PathBuf {
    built_with("tests/chart/build.sh", &[("HELM_VERSION", version)])
}

/// The folder of the chart.
pub fn chart() -> PathBuf {
    repository("deploy/chart")
}

/// Helm 4 with folders of its own, independent of the user's configuration.
pub fn helm(verb: &str) -> Run {
    helm_of(Version::Four, verb)
}

/// The same of a version.
pub fn helm_of(version: Version, verb: &str) -> Run {
    let files = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    let mut run = Run::new(version.program()).arg(verb);
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        run = run.env(name, files.path());
    }
    run.files(files)
}

/// `helm VERB` of the release with the chart of this repository.
pub fn release(verb: &str) -> Run {
    release_of(Version::Four, verb)
}

/// The same of a version of Helm.
pub fn release_of(version: Version, verb: &str) -> Run {
    let run = helm_of(version, verb).arg(NAME).arg(chart());
    run.args(["--namespace", NAME])
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
