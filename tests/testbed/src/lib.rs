//! A real control plane, the Azure emulator and the webhook's own program: where integration tests and benchmarks
//! take place. No node, no root: Pods are admitted and stay Pending.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Names of a test program's parts, as they were within one.
#![allow(missing_docs)]

pub mod control_plane;
pub mod gate;
pub mod review;
pub mod site;
pub mod webhook;
