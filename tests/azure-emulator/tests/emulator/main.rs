//! Tests of azure-emulator with clients and a registry that were not written for it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod assertions;
mod clouds;
mod faults;
mod image;
mod managed_identity;
mod microsoft_clients;
mod program;
mod proxy;
mod registry_rights;
mod skopeo;
mod support;
mod tokens;
