//! What was resolved lately. Most Pods wish for what another one has wished for a moment ago, and nothing has changed since.

use super::catalog::{Resolution, Wish};
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Some 1 KiB each. When there are more, all are forgotten: that costs less than to know which was used last.
const MOST: usize = 1024;

/// The resolutions of one epoch.
#[derive(Default)]
pub struct Recent(Mutex<Known>);

#[derive(Default)]
struct Known {
    epoch: u64,
    resolutions: HashMap<Wish, Resolution>,
}

// === impl Recent ===

impl Recent {
    /// What this wish was resolved to in this epoch.
    pub fn get(&self, wish: &Wish, epoch: u64) -> Option<Resolution> {
        let known = self.lock();
        let resolution = known.resolutions.get(wish)?;
        (known.epoch == epoch).then(|| resolution.clone())
    }

    /// Remembers what a wish was resolved to by what was read in this epoch.
    pub fn put(&self, wish: &Wish, resolution: &Resolution, epoch: u64) {
        let mut known = self.lock();
        if epoch < known.epoch {
            return;
        }
        if epoch > known.epoch || known.resolutions.len() >= MOST {
            known.resolutions.clear();
            known.epoch = epoch;
        }
        known.resolutions.insert(wish.clone(), resolution.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        generator::{Kind, Reference},
        pull_secret::Order,
    };
    use std::sync::Arc;

    fn wish(service_account: &str) -> Wish {
        let reference = Reference {
            kind: Kind::AccessToken,
            name: "contoso",
        };
        Wish::new("team-a", reference, Some(service_account))
    }

    fn resolution(hash: &str) -> Resolution {
        Resolution {
            order: Arc::new(Order::example(hash)),
            note: None,
        }
    }

    #[test]
    fn what_was_resolved_before_a_change_is_not_used_after_it() {
        let recent = Recent::default();
        recent.put(&wish("app"), &resolution("before"), 1);
        let hash = |wish: Wish, epoch| recent.get(&wish, epoch).map(|r| r.order.inputs_hash.clone());
        assert_eq!(hash(wish("app"), 1).as_deref(), Some("before"));
        assert_eq!(hash(wish("other"), 1), None);
        assert_eq!(hash(wish("app"), 2), None);
        recent.put(&wish("app"), &resolution("after"), 2);
        assert_eq!(hash(wish("app"), 2).as_deref(), Some("after"));
        // Whoever began before the change and ends after it comes too late.
        recent.put(&wish("app"), &resolution("before"), 1);
        assert_eq!(hash(wish("app"), 2).as_deref(), Some("after"));
    }

    #[test]
    fn there_is_an_end_to_what_is_remembered() {
        let recent = Recent::default();
        for n in 0..3 * MOST {
            recent.put(&wish(&format!("app-{n}")), &resolution("x"), 1);
            assert!(recent.lock().resolutions.len() <= MOST);
        }
    }
}
