//! Pull secrets: their names, their content, the `ACRPullSecret` that owns each of
//! them, and how they come into being.

mod catalog;
mod changes;
mod docker_config;
mod flight;
mod freshness;
mod issuer;
mod name;
mod recent;
mod resource;
mod writer;

pub use catalog::{Catalog, Resolution, Wish};
#[cfg(test)]
pub use freshness::freshness;
pub use issuer::{Cause, Guarded, Issuer, Order};
pub use name::{is_pull_secret, name};
pub use resource::{ACRPullSecret, ACRPullSecretSpec, ACRPullSecretStatus, GeneratorReference};
pub use writer::Writer;
