//! What integration tests, end-to-end tests and benchmarks are made of: a control plane, the Azure emulator, the
//! webhook's program, namespaces with their objects, and waiting with deadlines that scale with the machine's speed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Only test programs use this crate.
#![allow(missing_docs)]

pub mod api_proxy;
pub mod azure;
mod concurrency;
pub mod control_plane;
pub mod env;
mod eventually;
pub mod https_server;
pub mod namespace;
pub mod objects;
pub mod process;
pub mod programs;
pub mod repository;
pub mod review;
mod run;
pub mod speed;
mod turns;
pub mod webhook;

pub use concurrency::wait_for_another_test;
pub use eventually::{eventually, eventually_within};
pub use run::{allow_more_time, observe, run, waiting_for};
pub use testkit_macros::test;
pub use turns::{turns, turns_every};
