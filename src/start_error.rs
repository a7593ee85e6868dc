//! Why the program cannot start.

use std::error::Error;

/// Why the program cannot start, or had to stop. The message is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The value of a flag cannot be used. The message names the flag.
    #[error("{0}")]
    Flag(String),
    /// Something failed that the program needs: a file, an address, the Kubernetes configuration, the API server.
    #[error("{action}: {source}")]
    Failed {
        /// What the program tried, and what the operator can do.
        action: String,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The program tried everything, and the outcome is an error.
    #[error("{0}")]
    Outcome(String),
}

impl StartError {
    /// The error of an action, for `map_err`.
    pub fn failed<E: Into<Box<dyn Error + Send + Sync>>>(
        action: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        let action = action.into();
        |source| Self::Failed {
            action,
            source: source.into(),
        }
    }
}
