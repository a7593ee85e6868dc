//! The latest version of the one object that a watch selects by its name.

use crate::watch::Change;
use kube::Resource;

/// The object of a watch that selects one name.
pub struct WatchedObject<K> {
    /// The object, if it exists.
    pub object: Option<Box<K>>,
    /// Whether the first list is complete.
    pub synced: bool,
}

impl<K: Resource> WatchedObject<K> {
    /// Applies a change that the watch reports.
    pub fn apply(&mut self, change: Change<K>) {
        match change {
            Change::Applied(object) => self.object = Some(Box::new(object)),
            Change::Deleted(_) => self.object = None,
            Change::Relisted(_, all) if all.is_empty() => self.object = None,
            Change::Synced => self.synced = true,
            Change::Relisted(..) | Change::Stale(_) | Change::Recovered(_) => {}
        }
    }
}

impl<K> Default for WatchedObject<K> {
    fn default() -> Self {
        Self {
            object: None,
            synced: false,
        }
    }
}
