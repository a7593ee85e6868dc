//! What the leader measures about all pull secrets and its queue at once.

use super::{Metrics, PullSecretLabels};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// One measurement. The default is that of a replica that does not lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// The number of pull secrets with the same labels.
    pub pull_secrets: BTreeMap<PullSecretLabels, u32>,
    /// The earliest expiration of the tokens in use.
    pub first_expiration: Option<Timestamp>,
    /// How many pull secrets are due and wait for their turn.
    pub waiting: usize,
    /// How many pull secrets are being worked on.
    pub running: usize,
}

impl Metrics {
    /// Replaces the measurement before.
    pub fn set_overview(&self, overview: &Overview) {
        // No response to a scrape contains half of a measurement.
        let _no_scrape = self.registry.lock();
        self.pull_secrets.clear();
        for (labels, count) in &overview.pull_secrets {
            self.pull_secrets.get_or_create(labels).set(i64::from(*count));
        }
        let seconds = |expires: Timestamp| expires.as_millisecond() as f64 / 1e3;
        self.first_expiration
            .set(overview.first_expiration.map_or(f64::NAN, seconds));
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.reconciliations_waiting.set(number(overview.waiting));
        self.reconciliations_running.set(number(overview.running));
    }
}
