//! A counter that detects changes of the objects that resolution depends on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The number of changes so far. Clones share the counter.
#[derive(Clone, Debug, Default)]
pub struct Revision(Arc<AtomicU64>);

impl Revision {
    /// The current revision. Data that was read after this call is outdated once the revision differs.
    pub fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Records a change that is already visible to readers.
    pub fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}
