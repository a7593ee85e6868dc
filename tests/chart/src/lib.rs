//! What the tests of the chart share: the programs `helm` and `kubectl`, the manifests that they render, and the values
//! that the chart accepts and refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Only test programs use this crate.
#![allow(missing_docs)]

pub mod comparison;
pub mod helm;
pub mod kubectl;
pub mod manifests;
pub mod metrics;
mod program;
pub mod prometheus;
pub mod reference;
pub mod shell;
pub mod values;

pub use program::Run;

use std::path::{Path, PathBuf};

/// The name of the release, of its namespace and of most of its objects.
pub const NAME: &str = "acr-pull-webhook";

/// The absolute path of a file in this repository.
pub fn repository(path: impl AsRef<Path>) -> PathBuf {
    testkit::repository::root().join(path)
}
