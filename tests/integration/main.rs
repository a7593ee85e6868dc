//! Integration tests: the webhook's own binary against a real API server and the Azure
//! emulator. No node, no root: Pods are admitted and stay Pending.
//!
//! One control plane serves all tests of a run; each test has a webhook, an emulator
//! and namespaces of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pull;
#[path = "../azure-emulator/tests/emulator/support/registry.rs"]
mod registry;

mod admission;
mod api_server;
mod certificates;
mod check;
mod clock;
mod crds;
mod defaults;
mod documented;
mod faults;
mod hostile;
mod identities;
mod kills;
mod leader;
mod listener;
mod namespaced;
mod permissions;
mod policies;
mod principals;
mod protocol;
mod references;
mod refusals;
mod scale;
mod sharing;
mod upkeep;
mod upstream;
mod writing;
