//! TLS: the sources of the serving certificate and the secret path, and the listener that uses them.

mod authority;
mod certificate_slot;
mod client;
mod connections;
mod files;
mod listener;
mod manager;
mod names;
mod path;
mod serving_certificate;
mod settings;

pub use authority::CertificateSpec;
pub use certificate_slot::CertificateSlot;
pub use client::ClientAuth;
pub use connections::MAX_UNPROVEN;
pub use files::follow;
pub use listener::{ListenerKind, ShutdownPhase, ShutdownWatch, serve};
pub use manager::{PublishTargets, manage};
pub use path::{SecretPath, SecretPaths};
pub use serving_certificate::ServingCertificate;
pub use settings::{Source, TlsArgs};
