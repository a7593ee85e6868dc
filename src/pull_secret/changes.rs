//! The pull secrets that have changed since the listener looked last. A set of names cannot overflow as a channel can.

use crate::names::NamespacedName;
use parking_lot::Mutex;
use std::{collections::HashSet, mem, sync::Arc};
use tokio::sync::Notify;

/// The changes. Clones share them. Changes are dropped while there is no listener.
#[derive(Clone, Default)]
pub struct Changes(Arc<Inner>);

impl Changes {
    /// Records that this pull secret was changed or deleted.
    pub fn add(&self, key: NamespacedName) {
        if let Some(changed) = &mut *self.0.changed.lock() {
            changed.insert(key);
            self.0.notify.notify_one();
        }
    }

    /// Listens from now on, in place of an earlier listener.
    pub fn listen(&self) -> Listener {
        *self.0.changed.lock() = Some(HashSet::new());
        Listener(self.clone())
    }
}

#[derive(Default)]
struct Inner {
    /// `None` while there is no listener.
    changed: Mutex<Option<HashSet<NamespacedName>>>,
    notify: Notify,
}

/// Receives changes until it is dropped.
pub struct Listener(Changes);

impl Listener {
    /// Waits for changes since the last call, and returns them.
    pub async fn next(&self) -> HashSet<NamespacedName> {
        loop {
            let changed = self
                .0
                .0
                .changed
                .lock()
                .as_mut()
                .map(mem::take)
                .unwrap_or_default();
            if !changed.is_empty() {
                return changed;
            }
            self.0.0.notify.notified().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        *self.0.0.changed.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_late_listener_gets_each_change_once() {
        let changes = Changes::default();
        let add = |n: u32| changes.add(NamespacedName::new("team-a", &n.to_string()).unwrap());
        add(0);
        let listener = changes.listen();
        assert!(
            listener.next().now_or_never().is_none(),
            "a change before the listener"
        );
        for n in (0..10_000).chain(0..10_000) {
            add(n);
        }
        assert_eq!(listener.next().await.len(), 10_000);
        assert!(listener.next().now_or_never().is_none());
        add(1);
        assert_eq!(listener.next().await.len(), 1);
        drop(listener);
        add(2);
        assert!(
            changes.0.changed.lock().is_none(),
            "a dropped listener takes no memory"
        );
    }
}
