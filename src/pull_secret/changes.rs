//! Which pull secrets have changed since somebody looked last: a set of names, which cannot be behind as a channel can.

use std::{
    collections::HashSet,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Notify;

/// Namespace and name.
type Key = (String, String);

/// The changes; clones share them. Nothing is kept while nobody listens.
#[derive(Clone, Default)]
pub struct Changes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Nothing while nobody listens.
    changed: Mutex<Option<HashSet<Key>>>,
    bell: Notify,
}

/// Somebody who listens, until this is dropped.
pub struct Listener(Changes);

// === impl Changes ===

impl Changes {
    /// This one has changed, or is gone.
    pub fn add(&self, namespace: String, name: String) {
        if let Some(changed) = &mut *self.lock() {
            changed.insert((namespace, name));
            self.0.bell.notify_one();
        }
    }

    /// Listens from now on, in place of whoever did before.
    pub fn listen(&self) -> Listener {
        *self.lock() = Some(HashSet::new());
        Listener(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashSet<Key>>> {
        self.0.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Listener ===

impl Listener {
    /// What has changed since this was last asked, at least one.
    pub async fn next(&self) -> HashSet<Key> {
        loop {
            let changed = self.0.lock().as_mut().map(mem::take).unwrap_or_default();
            if !changed.is_empty() {
                return changed;
            }
            self.0.0.bell.notified().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn each_change_is_told_once_however_late_somebody_looks() {
        let changes = Changes::default();
        let add = |n: u32| changes.add("team-a".to_owned(), n.to_string());
        add(0);
        let listener = changes.listen();
        assert!(listener.next().now_or_never().is_none(), "what was before");
        for n in (0..10_000).chain(0..10_000) {
            add(n);
        }
        assert_eq!(listener.next().await.len(), 10_000);
        assert!(listener.next().now_or_never().is_none());
        add(1);
        assert_eq!(listener.next().await.len(), 1);
        drop(listener);
        add(2);
        assert!(changes.lock().is_none(), "nothing is kept");
    }
}
