//! Where the programs are that take part.

use clap::Args;
use std::{ffi::OsStr, path::PathBuf};
use tokio::process::Command;

/// `bench/run.sh` builds them all.
#[derive(Args, Clone, Debug)]
pub struct Tools {
    /// The floor's program.
    #[arg(long)]
    pub floor: PathBuf,
    /// The same, with an allocator that is in a library.
    #[arg(long)]
    pub floor_dynamic: PathBuf,
    /// The webhook's, with an allocator that is in a library.
    #[arg(long)]
    pub webhook_dynamic: PathBuf,
    /// oha's.
    #[arg(long)]
    pub oha: PathBuf,
}

/// A command that runs a program on this core alone.
pub fn on_core(core: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(program);
    command
}
