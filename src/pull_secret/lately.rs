//! What was looked up lately and not found, so that each Pod which names it is not a call to the API server.

use crate::problem::Problem;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// What is made in the meantime is found at once where a watch shows it, and otherwise after this.
const LASTS: Duration = Duration::from_secs(1);
/// Some 1 KiB each. When there are more, all are forgotten.
const MOST: usize = 1024;

/// Refusals by what was looked for. Each holds while nothing changes that the watches show, and no longer than a moment.
#[derive(Debug)]
pub struct Lately<K>(Mutex<HashMap<K, Refusal>>);

#[derive(Debug)]
struct Refusal {
    problem: Problem,
    epoch: u64,
    until: Instant,
}

// === impl Lately ===

impl<K: Eq + Hash + Clone> Lately<K> {
    /// Why a look-up of this was refused a moment ago, in this epoch.
    pub fn get(&self, key: &K, epoch: u64) -> Option<Problem> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refusal = all.get(key)?;
        let holds = refusal.epoch == epoch && Instant::now() < refusal.until;
        holds.then(|| refusal.problem.clone())
    }

    /// Remembers why the look-up was refused that began in this epoch. What another try can mend is not remembered.
    pub fn put(&self, key: &K, problem: &Problem, epoch: u64) {
        if problem.is_transient() {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.clear();
        }
        let refusal = Refusal {
            problem: problem.clone(),
            epoch,
            until: Instant::now() + LASTS,
        };
        all.insert(key.clone(), refusal);
    }
}

impl<K> Default for Lately<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Reason;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_for_a_moment_and_not_beyond_a_change() {
        let lately = Lately::default();
        let missing = Problem::new(Reason::GeneratorNotFound, "missing");
        lately.put(&"a", &missing, 1);
        assert_eq!(lately.get(&"a", 1), Some(missing.clone()));
        assert_eq!(lately.get(&"b", 1), None);
        assert_eq!(lately.get(&"a", 2), None, "a watch has shown a change");
        tokio::time::advance(LASTS).await;
        assert_eq!(lately.get(&"a", 1), None);
        lately.put(&"a", &Problem::new(Reason::ApiServerUnavailable, "down"), 1);
        assert_eq!(lately.get(&"a", 1), None);
        let many = Lately::default();
        for n in 0..3 * MOST {
            many.put(&n, &missing, 1);
            assert!(many.0.lock().unwrap().len() <= MOST);
        }
    }
}
