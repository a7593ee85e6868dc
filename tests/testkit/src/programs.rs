//! The programs of a control plane.

use crate::control_plane::root;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

/// The folder of etcd, the programs of Kubernetes and `control-plane`, which are built when they are missing.
pub fn built() -> &'static Path {
    static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
        let build = Command::new(root().join("tests/cluster/build.sh"))
            .stderr(Stdio::inherit())
            .output()
            .expect("tests/cluster/build.sh can be started");
        assert!(
            build.status.success(),
            "tests/cluster/build.sh failed; its message is above"
        );
        String::from_utf8(build.stdout).unwrap().trim().into()
    });
    &PROGRAMS
}
