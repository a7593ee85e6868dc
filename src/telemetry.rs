//! Metrics, logs and health: what an operator sees.

mod health;
mod log;
mod metrics;

pub use health::{Health, Outage, Readiness, WatchHealth};
pub use log::{LogArgs, init as init_log};
pub use metrics::{Hop, Metrics, Renewal};

/// Our name wherever an API wants one: in `managedFields`, in Events, in labels.
pub const FIELD_MANAGER: &str = "acr-pull-webhook";
