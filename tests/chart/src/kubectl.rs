//! kubectl without a cluster.

use crate::{manifests::Manifests, program::Run};
use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};
use testkit::programs::built_by;

/// The program of the environment variable `KUBECTL`, or the one that is built for the test cluster.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| match std::env::var("KUBECTL") {
    Ok(program) if !program.is_empty() => program.into(),
    _ => built_by("tests/cluster/build.sh").join("kubectl"),
});

/// kubectl without a cluster and without the user's configuration.
pub fn kubectl() -> Run {
    Run::new(&*PROGRAM).env("KUBECONFIG", "/dev/null")
}

/// The manifests of a folder with a `kustomization.yaml`.
pub async fn kustomize(folder: impl AsRef<Path>) -> Manifests {
    let run = kubectl().arg("kustomize").arg(folder.as_ref());
    Manifests::parse(&run.succeed().await)
}

/// The lines of `kubectl get --output name`.
pub fn object_names(output: &str) -> impl Iterator<Item = &str> {
    output.lines().filter(|line| !line.is_empty())
}
