//! Metrics, logs and health for operators.

mod health;
mod log;
mod metrics;

pub use health::{Health, Outage, Readiness, ScopeHealth, UnreadyReason, WatchHealth};
pub use log::{LogArgs, init as init_log};
pub use metrics::{
    AdmissionOutcome, Metrics, Overview, PullSecretLabels, Ready, RenewalOutcome, UpstreamCall,
    reference as metrics_reference,
};

/// The name of this program in `managedFields`, Events and labels.
pub const FIELD_MANAGER: &str = "acr-pull-webhook";
