//! Programs that scripts of this repository build, and what they print.

use crate::repository::root;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The path that a build script of this repository prints. The script builds the program if it is missing.
pub fn built_by(script: &str) -> PathBuf {
    built_with(script, &[])
}

/// The same with environment variables, by which the script chooses a version.
pub fn built_with(script: &str, variables: &[(&str, &str)]) -> PathBuf {
    let build = Command::new(root().join(script))
        .envs(variables.iter().copied())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{script} cannot be started: {error}"));
    assert!(build.status.success(), "{script} failed; its message is above");
    String::from_utf8(build.stdout).unwrap().trim().into()
}

/// The folder of etcd, the programs of Kubernetes and `control-plane`: of the newest release that is supported, or of the
/// oldest one with `KUBERNETES=oldest` in the environment.
pub fn built() -> &'static Path {
    static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| built_by("tests/cluster/build.sh"));
    &PROGRAMS
}

/// The objects in a stream of YAML documents.
pub fn manifests(yaml: &str) -> Vec<Value> {
    // Helm, kustomize and Kubernetes read YAML 1.1: the mode `0440` is an octal number.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(yaml, options)
        .unwrap_or_else(|error| panic!("helm and kustomize print YAML: {error}\n{yaml}"));
    documents.into_iter().filter(|object| !object.is_null()).collect()
}
