//! TLS: the certificate, and the listener that speaks it.

mod files;
mod listener;

pub use files::server_config;
pub use listener::{Drain, Stage, serve};
