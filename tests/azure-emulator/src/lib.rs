//! Microsoft Entra ID and Azure Container Registry for tests: real protocols and verified signatures, in front of a real registry.
//!
//! ```no_run
//! use azure_emulator::{AssertionIssuer, Emulator, Options, World};
//!
//! let world = World::parse("
//! tenants:
//!   - id: 00000000-aaaa-0000-0000-000000000000
//!     applications:
//!       - clientId: 00000000-bbbb-0000-0000-000000000000
//!         secrets: [hunter2]
//! ").unwrap();
//! let emulator = Emulator::start(world, Options::default()).unwrap();
//! println!("HTTPS_PROXY={} and trust\n{}", emulator.proxy_url().unwrap(), emulator.ca_pem());
//! ```

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        reason = "a test that cannot go on fails"
    )
)]

mod acr;
mod assertion_issuer;
mod client;
mod cloud;
mod connect;
mod connection;
mod control;
mod dispatch;
mod duration;
mod emulator;
mod endpoint;
mod entra;
mod faults;
mod http;
mod jwt;
mod log;
mod managed_identity;
mod state;
mod tls;
mod world;

pub use assertion_issuer::AssertionIssuer;
pub use client::{ControlClient, ControlError};
pub use emulator::{Emulator, Options, StartError};
pub use endpoint::Endpoint;
pub use faults::{BadBody, ExpiresIn, Fault};
pub use log::{Credentials, RequestRecord};
pub use world::{World, WorldError};

/// reqwest takes the crypto provider from the process; where a test has chosen one already, that one stays.
fn use_ring() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
