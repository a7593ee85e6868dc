//! The failures of a watch.

use crate::{
    kubernetes::{CallError, is_kind_missing},
    telemetry::Outage,
    untrusted::UntrustedText,
};
use kube::Resource;
use std::{fmt, time::Duration};

/// A watch works when it has lasted this long, or has delivered an event.
pub const MIN_WATCH_DURATION: Duration = Duration::from_secs(1);

/// Why a watch is started again before its regular end.
pub enum Failure {
    /// A call failed, or the API server reported an error in the watch.
    Call(CallError),
    /// The API server ended the watch without an event, before [`MIN_WATCH_DURATION`].
    EndedEarly,
}

impl Failure {
    /// The code of the API server's status; 0 without a status.
    pub fn code(&self) -> u16 {
        match self {
            Self::Call(CallError::Api(status)) => status.code,
            Self::Call(CallError::TooLarge(_) | CallError::Transport(_)) | Self::EndedEarly => 0,
        }
    }

    /// Whether the API server refuses the watch, or does not answer it.
    pub fn outage(&self) -> Outage {
        match self.code() {
            code @ 400..500 if !matches!(code, 408 | 429) => Outage::Refused,
            _ => Outage::Unreachable,
        }
    }

    /// Whether the API server does not know the kind.
    pub fn is_kind_missing(&self) -> bool {
        matches!(self, Self::Call(CallError::Api(status)) if is_kind_missing(status))
    }

    /// What failed in a watch of this kind, for a person.
    pub fn describe<K: Resource<DynamicType = ()>>(&self) -> String {
        if !self.is_kind_missing() {
            return UntrustedText::new(&self.to_string()).to_string();
        }
        let (plural, group) = (K::plural(&()), K::group(&()));
        format!("CustomResourceDefinition {plural}.{group} is not installed: install the CRDs of the chart")
    }

    /// Whether this is normal as long as it is not repeated: the API server restarts, has compacted its history (410), or
    /// asks to try again (429), as it does for a moment after a CRD was installed.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::EndedEarly) || matches!(self.code(), 410 | 429)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => fmt::Display::fmt(error, f),
            Self::EndedEarly => write!(
                f,
                "the API server ended the watch in less than {MIN_WATCH_DURATION:?}"
            ),
        }
    }
}
