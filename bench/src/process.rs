//! The CPU time of processes.

use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use std::time::Duration;

/// The CPU time of all threads of a process, including ended ones (clock_getcpuclockid(3)).
pub fn cpu(process: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed())).expect("the process exists");
    clock_gettime(clock).expect("the clock can be read").into()
}
