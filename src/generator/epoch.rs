//! Whether anything has changed that resolving depends on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts changes; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Epoch(Arc<AtomicU64>);

// === impl Epoch ===

impl Epoch {
    /// How many changes there have been. What was read after this call is outdated once the number is another one.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// There was a change, and whoever reads from now on sees it.
    pub fn turn(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
