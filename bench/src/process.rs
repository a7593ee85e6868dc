//! The CPU time of processes.

use nix::{
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};
use std::time::Duration;

/// Of all threads of a process, dead ones included, to the nanosecond (clock_getcpuclockid(3)).
pub fn cpu(process: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(process.cast_signed())).expect("the process is there");
    clock_gettime(clock).expect("its clock runs").into()
}
