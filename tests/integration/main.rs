//! Integration tests: the webhook's program with a real API server and the Azure emulator. There is no node, and no
//! root is needed: Pods are admitted and stay Pending.
//!
//! Most tests share one control plane; each test has a webhook, an emulator and namespaces of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod pull;
#[path = "../azure-emulator/tests/emulator/support/registry.rs"]
mod registry;

mod admission;
mod api_server;
mod certificates;
mod check;
mod clock;
mod complaints;
mod crds;
mod defaults;
mod documented;
mod extra_metadata;
mod faults;
mod hostile;
mod identities;
mod images;
mod invalid_generators;
mod kills;
mod kubectl;
mod leader;
mod listener;
mod losses;
mod namespaced;
mod permissions;
mod pod_events;
mod pod_forms;
mod policies;
mod principals;
mod prometheus;
mod propagation;
mod protocol;
mod recreated;
mod references;
mod refusals;
mod refused_writes;
mod scale;
mod secret_path;
mod service_accounts;
mod sharing;
mod upkeep;
mod upstream;
mod writing;
