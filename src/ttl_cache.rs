//! A small cache whose values expire, for the results of calls that users can cause often.

use parking_lot::Mutex;
use std::{borrow::Borrow, collections::HashMap, hash::Hash, time::Duration};
use tokio::time::Instant;

/// A full cache is cleared: that costs less than to track which value was used last.
const MAX_VALUES: usize = 1024;

/// A cache whose values expire.
pub struct TtlCache<K, V> {
    ttl: Duration,
    /// Each value with the time at which it expires.
    values: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash, V: Clone> TtlCache<K, V> {
    /// A cache whose values expire after this time.
    pub fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            values: Mutex::default(),
        }
    }

    /// The value, unless it has expired.
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let values = self.values.lock();
        let (value, expires) = values.get(key)?;
        (Instant::now() < *expires).then(|| value.clone())
    }

    /// Keeps a value until it expires.
    pub fn put(&self, key: K, value: V) {
        let mut values = self.values.lock();
        if values.len() >= MAX_VALUES {
            values.clear();
        }
        values.insert(key, (value, Instant::now() + self.ttl));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_expires_and_the_number_of_values_is_bounded() {
        let cache = TtlCache::new(Duration::from_secs(1));
        cache.put("a", 1);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!((cache.get("a"), cache.get("b")), (Some(1), None));
        cache.put("a", 2);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(cache.get("a"), Some(2), "a new value has its own time");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(cache.get("a"), None);
        let cache = TtlCache::new(Duration::from_secs(1));
        for n in 0..3 * MAX_VALUES {
            cache.put(n, ());
            assert!(cache.get(&n).is_some());
            assert!(cache.values.lock().len() <= MAX_VALUES);
        }
    }
}
