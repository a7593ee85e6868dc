//! The webhook as Helm installs it, on a real node. `make e2e-helm` brings all that these tests want, and runs them one
//! after the other: each begins by removing what is installed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod certificates;
mod cluster;
mod outages;
mod release;
mod replacements;
// Cargo runs them by name: these leave nothing to the next suite.
mod uninstalling;
