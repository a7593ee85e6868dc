//! The failures of a watch.

use crate::kubernetes::CallError;
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

    /// Whether this is normal as long as it is not repeated: the API server restarts, or has compacted its history.
    pub fn is_interruption(&self) -> bool {
        matches!(self, Self::EndedEarly) || self.code() == 410
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
