//! TLS: where the certificate and the secret path come from, and the listener that serves them.

mod authority;
mod client;
mod connections;
mod files;
mod keeper;
mod listener;
mod names;
mod pair;
mod path;
mod serving;
mod settings;

pub use authority::Terms;
pub use client::Clients;
pub use connections::UNPROVEN;
pub use files::follow;
pub use keeper::{Places, keep};
pub use listener::{Door, Drain, Stage, serve};
pub use pair::Pair;
pub use path::{Paths, SecretPath};
pub use serving::Serving;
pub use settings::{Source, TlsArgs};
