//! Pull secrets: their names, their content, the `ACRPullSecret` that owns each of
//! them, and how they come into being.

mod catalog;
mod census;
mod changes;
mod docker_config;
mod flight;
mod freshness;
pub mod issuer;
mod lately;
mod name;
mod pair;
mod recent;
mod resource;
mod writer;

pub use catalog::{Catalog, Resolution, Wish};
#[cfg(test)]
pub use freshness::freshness;
pub use freshness::share;
pub use issuer::{Cause, Guarded, Issuer, Order};
pub use name::{is_pull_secret, name};
pub use resource::{ACRPullSecret, ACRPullSecretSpec, ACRPullSecretStatus, AccountOf, GeneratorReference};
pub use writer::Writer;

/// All that is computed of an object's times.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(object: &ACRPullSecret) {
    freshness::freshness(object, "hash", jiff::Timestamp::now());
}
