//! The webhook as Helm installs it, on a real node. `make e2e-helm` provides what these tests need, and runs them one
//! after the other: each test begins without a release.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod cluster;
mod outages;
mod quick_start;
mod release;
mod repairs;
mod replacements;
// The test harness runs modules by name: after these tests, nothing is installed.
mod uninstalling;
