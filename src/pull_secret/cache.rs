//! Results of resolving requests, kept while the watched generators and service accounts do not change.

use crate::{problem::Problem, ttl_cache::TtlCache};
use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, time::Duration};

/// An entry takes about 1 KiB. A full cache is cleared: that costs less than to track which entry was used last.
const MAX_ENTRIES: usize = 1024;
/// An object that a watch does not show is looked for again after this time.
const REFUSAL_TTL: Duration = Duration::from_secs(1);

/// The results of one revision of the watched objects.
pub struct ResultCache<K, V>(Mutex<Entries<K, V>>);

struct Entries<K, V> {
    revision: u64,
    results: HashMap<K, V>,
}

impl<K, V> Default for ResultCache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries {
            revision: 0,
            results: HashMap::new(),
        }))
    }
}

impl<K: Eq + Hash + Clone, V: Clone> ResultCache<K, V> {
    /// The result in this revision.
    pub fn get(&self, key: &K, revision: u64) -> Option<V> {
        let entries = self.0.lock();
        let result = entries.results.get(key)?;
        (entries.revision == revision).then(|| result.clone())
    }

    /// Keeps a result of objects that were read in this revision or later.
    pub fn put(&self, key: &K, result: &V, revision: u64) {
        let mut entries = self.0.lock();
        if revision < entries.revision {
            return;
        }
        if revision > entries.revision || entries.results.len() >= MAX_ENTRIES {
            entries.results.clear();
            entries.revision = revision;
        }
        entries.results.insert(key.clone(), result.clone());
    }
}

/// Refusals of live look-ups, so that not every Pod with a wrong name causes a call to the API server. A refusal holds
/// for a moment, and not beyond a change that a watch shows.
pub struct RefusalCache<K>(TtlCache<K, Refusal>);

#[derive(Clone)]
struct Refusal {
    problem: Problem,
    revision: u64,
}

impl<K: Eq + Hash> Default for RefusalCache<K> {
    fn default() -> Self {
        Self(TtlCache::new(REFUSAL_TTL))
    }
}

impl<K: Eq + Hash + Clone> RefusalCache<K> {
    /// The refusal of a look-up that began in this revision.
    pub fn get(&self, key: &K, revision: u64) -> Option<Problem> {
        let refusal = self.0.get(key)?;
        (refusal.revision == revision).then_some(refusal.problem)
    }

    /// Keeps the refusal of a look-up that began in this revision, unless another attempt can help.
    pub fn put(&self, key: &K, problem: &Problem, revision: u64) {
        if problem.is_transient() {
            return;
        }
        let problem = problem.clone();
        self.0.put(key.clone(), Refusal { problem, revision });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Reason;

    #[test]
    fn a_result_of_an_older_revision_is_not_used() {
        let cache = ResultCache::default();
        cache.put(&"app", &"before", 1);
        assert_eq!(cache.get(&"app", 1), Some("before"));
        assert_eq!(cache.get(&"other", 1), None);
        assert_eq!(cache.get(&"app", 2), None);
        cache.put(&"app", &"after", 2);
        assert_eq!(cache.get(&"app", 2), Some("after"));
        // A resolution that began before the change and ends after it is outdated.
        cache.put(&"app", &"before", 1);
        assert_eq!(cache.get(&"app", 2), Some("after"));
    }

    #[test]
    fn the_number_of_results_is_bounded() {
        let cache = ResultCache::default();
        for n in 0..3 * MAX_ENTRIES {
            cache.put(&n, &(), 1);
            assert!(cache.0.lock().results.len() <= MAX_ENTRIES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_holds_for_a_moment_and_not_beyond_a_change() {
        let cache = RefusalCache::default();
        let missing = Problem::new(Reason::GeneratorNotFound, "missing");
        cache.put(&"a", &missing, 1);
        assert_eq!(cache.get(&"a", 1), Some(missing.clone()));
        assert_eq!(cache.get(&"b", 1), None);
        assert_eq!(cache.get(&"a", 2), None, "a watch has shown a change");
        tokio::time::advance(REFUSAL_TTL).await;
        assert_eq!(cache.get(&"a", 1), None);
        cache.put(&"a", &Problem::new(Reason::ApiServerUnavailable, "down"), 1);
        assert_eq!(cache.get(&"a", 1), None, "another attempt can help");
    }
}
