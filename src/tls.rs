//! The TLS certificate, the secret path, and the listener that uses both.

mod certificate_and_key;
mod chain;
mod client;
mod connections;
mod credentials;
mod field_managers;
mod files;
mod listener;
mod manager;
mod names;
mod path;
mod settings;
mod slot;
mod spec;
mod state;
mod watched_object;
mod webhook_configuration;

pub use certificate_and_key::CertificateAndKey;
pub use chain::CertificateChain;
pub use client::AllowedClients;
pub use connections::MAX_UNPROVEN;
pub use files::serve_files;
pub use listener::{HttpService, ListenerKind, ShutdownPhase, serve};
pub use manager::{PublishTargets, manage};
pub use path::{AcceptedPaths, SecretPath};
pub use settings::{CertificateSource, TlsArgs};
pub use slot::CertificateSlot;
pub use spec::CertificateSpec;
