//! The paths of the programs.

use clap::Args;
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// `bench/run.sh` builds them all.
#[derive(Args, Clone, Debug)]
pub struct Tools {
    /// The baseline.
    #[arg(long)]
    pub baseline: PathBuf,
    /// The baseline with an allocator in a shared library.
    #[arg(long)]
    pub baseline_dynamic: PathBuf,
    /// The webhook with an allocator in a shared library.
    #[arg(long)]
    pub webhook_dynamic: PathBuf,
    /// The webhook of azure-workload-identity, for the part peer.
    #[arg(long)]
    peer: Option<PathBuf>,
    /// oha.
    #[arg(long)]
    pub oha: PathBuf,
    /// The folder of inferno's programs, for --profile.
    #[arg(long)]
    inferno: Option<PathBuf>,
}

impl Tools {
    /// The path of azure-workload-identity.
    pub fn peer(&self) -> &Path {
        self.peer.as_deref().expect("the part peer needs --peer")
    }

    /// The path of one of inferno's programs.
    pub fn inferno(&self, program: &str) -> PathBuf {
        let folder = self.inferno.as_ref();
        folder.expect("--profile needs --inferno").join(program)
    }
}

/// A command that runs a program on this core.
pub fn on_core(core: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}
