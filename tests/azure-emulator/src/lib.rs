//! Microsoft Entra ID and Azure Container Registry for tests: real protocols and verified signatures, in front of a real
//! registry.
//!
//! ```no_run
//! use azure_emulator::{Emulator, Options, World};
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
mod azure;
mod cloud;
mod connect;
mod connection;
mod control;
mod dispatch;
mod emulator;
mod endpoint;
mod entra;
mod faults;
mod http;
mod jwt;
mod log;
mod managed_identity;
mod tls;
mod world;

pub use assertion_issuer::AssertionIssuer;
pub use emulator::{Emulator, Options, StartError};
pub use endpoint::Endpoint;
pub use faults::{Effect, ExpiresIn, Fault, InvalidBody};
pub use hyper::{StatusCode, Uri};
pub use log::{Credentials, RequestRecord};
pub use world::{World, WorldError};
