//! How many pull secrets each namespace has: those that the watch shows, and those that are about to be.

use crate::problem::{Problem, Reason};
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The counts; clones share them. Names are kept as hashes: two names with one hash would be counted once.
#[derive(Clone, Debug, Default)]
pub struct Census(Arc<Mutex<HashMap<String, Members>>>);

#[derive(Debug, Default)]
struct Members {
    there: HashSet<u64>,
    /// Those that are not there yet, each with the number of its reservations.
    expected: HashMap<u64, u32>,
}

/// A pull secret that is about to be, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    census: Census,
    namespace: String,
    name: u64,
}

// === impl Census ===

impl Census {
    /// The watch shows it.
    pub fn appeared(&self, namespace: &str, name: &str) {
        let mut all = self.lock();
        if !all.contains_key(namespace) {
            all.insert(namespace.to_owned(), Members::default());
        }
        if let Some(members) = all.get_mut(namespace) {
            let name = hash(name);
            members.there.insert(name);
            members.expected.remove(&name);
        }
    }

    /// It is there no more.
    pub fn disappeared(&self, namespace: &str, name: &str) {
        self.change(namespace, |members| {
            members.there.remove(&hash(name));
        });
    }

    /// Counts one that is about to be, where the namespace has room for it.
    pub fn reserve(&self, namespace: &str, name: &str, most: u32) -> Result<Reservation, Problem> {
        let mut all = self.lock();
        let members = all.entry(namespace.to_owned()).or_default();
        let name = hash(name);
        let is_counted = members.there.contains(&name) || members.expected.contains_key(&name);
        if !is_counted && members.len() >= most as usize {
            return Err(Problem::new(
                Reason::TooManyPullSecrets,
                format!(
                    "namespace {namespace} has {most} ACRPullSecrets, the most that --max-pull-secrets-per-namespace \
                     permits; delete those that no Pod names, or name fewer generators and service accounts"
                ),
            ));
        }
        if !members.there.contains(&name) {
            *members.expected.entry(name).or_default() += 1;
        }
        Ok(Reservation {
            census: self.clone(),
            namespace: namespace.to_owned(),
            name,
        })
    }

    fn change(&self, namespace: &str, change: impl FnOnce(&mut Members)) {
        let mut all = self.lock();
        if let Some(members) = all.get_mut(namespace) {
            change(members);
            if members.len() == 0 {
                all.remove(namespace);
            }
        }
    }

    /// Never held across an await; a panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Members ===

impl Members {
    fn len(&self) -> usize {
        self.there.len() + self.expected.len()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let name = self.name;
        self.census.change(&self.namespace, |members| {
            if let Some(reservations) = members.expected.get_mut(&name) {
                *reservations -= 1;
                if *reservations == 0 {
                    members.expected.remove(&name);
                }
            }
        });
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_and_what_is_about_to_be_is_counted_once_each_and_for_each_namespace() {
        let census = Census::default();
        let reserve = |name: &str| census.reserve("a", name, 3);
        census.appeared("a", "one");
        census.appeared("a", "one");
        let two = reserve("two").unwrap();
        let three = reserve("three").unwrap();
        let refusal = reserve("four").unwrap_err();
        assert_eq!(refusal.reason, Reason::TooManyPullSecrets);
        // Those that are counted already cost nothing more.
        let (again, known) = (reserve("two").unwrap(), reserve("one").unwrap());
        drop((again, known));
        assert!(reserve("four").is_err());
        assert!(census.reserve("b", "four", 3).is_ok());
        // The watch shows one of those that are about to be.
        census.appeared("a", "two");
        drop(two);
        assert!(reserve("four").is_err());
        drop(three);
        let four = reserve("four").unwrap();
        assert!(reserve("five").is_err());
        census.disappeared("a", "one");
        assert!(reserve("five").is_ok());
        drop(four);
        census.disappeared("a", "two");
        assert!(
            census.lock().is_empty(),
            "nothing is kept of a namespace without any"
        );
    }
}
