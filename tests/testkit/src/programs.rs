//! The programs of a control plane.

use crate::control_plane::root;
use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, symlink},
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

/// The same programs, with additional flags for kube-apiserver.
pub fn with_flags(dir: &Path, flags: &[&str]) -> PathBuf {
    if flags.is_empty() {
        return built().to_owned();
    }
    let folder = dir.join("programs");
    std::fs::create_dir(&folder).unwrap();
    for program in built().read_dir().unwrap() {
        let program = program.unwrap();
        symlink(program.path(), folder.join(program.file_name())).unwrap();
    }
    let api_server = folder.join("kube-apiserver");
    std::fs::remove_file(&api_server).unwrap();
    let quoted: Vec<_> = flags.iter().map(|flag| format!("'{flag}'")).collect();
    let program = built().join("kube-apiserver");
    let script = format!(
        "#!/bin/sh\nexec '{}' \"$@\" {}\n",
        program.display(),
        quoted.join(" ")
    );
    std::fs::write(&api_server, script).unwrap();
    std::fs::set_permissions(&api_server, Permissions::from_mode(0o755)).unwrap();
    folder
}
