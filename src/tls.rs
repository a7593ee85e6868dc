//! TLS: where the certificate comes from, and the listener that speaks it.

mod authority;
mod files;
mod keeper;
mod listener;
mod pair;
mod serving;
mod settings;

pub use authority::Terms;
pub use files::follow;
pub use keeper::{Places, keep};
pub use listener::{Drain, Stage, serve};
pub use pair::Pair;
pub use serving::Serving;
pub use settings::{Source, TlsArgs};
