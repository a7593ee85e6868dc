//! Counts the pull secrets of each namespace: those that the watch shows, and those that are about to be made.

use crate::{
    names::{NamespaceName, NamespacedName, ObjectName},
    problem::{Problem, Reason},
};
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// The counts. Clones share them. Names are kept as hashes, so two names with the same hash count once.
#[derive(Clone, Debug, Default)]
pub struct Census(Arc<Mutex<HashMap<NamespaceName, Members>>>);

impl Census {
    /// Counts a pull secret that the watch shows.
    pub fn add(&self, key: &NamespacedName) {
        let mut all = self.0.lock();
        let members = all.entry(key.namespace.clone()).or_default();
        let name = hash(&key.name);
        members.existing.insert(name);
        members.reserved.remove(&name);
    }

    /// Stops counting a pull secret that was deleted.
    pub fn remove(&self, key: &NamespacedName) {
        self.change(&key.namespace, |members| {
            members.existing.remove(&hash(&key.name));
        });
    }

    /// Counts a pull secret that is about to be made, if the namespace has room for it.
    pub fn reserve(&self, key: &NamespacedName, max: u32) -> Result<Reservation, Problem> {
        let namespace = &key.namespace;
        let mut all = self.0.lock();
        let members = all.entry(namespace.clone()).or_default();
        let name = hash(&key.name);
        let is_counted = members.existing.contains(&name) || members.reserved.contains_key(&name);
        if !is_counted && members.len() >= max as usize {
            return Err(Problem::new(
                Reason::TooManyPullSecrets,
                format!(
                    "namespace {namespace} has {max} ACRPullSecrets, the --max-pull-secrets-per-namespace: delete unused ones"
                ),
            )
            .command(format!("kubectl get acrpullsecrets --namespace {namespace}")));
        }
        if !members.existing.contains(&name) {
            *members.reserved.entry(name).or_default() += 1;
        }
        Ok(Reservation {
            census: self.clone(),
            namespace: namespace.clone(),
            name,
        })
    }

    fn change(&self, namespace: &NamespaceName, change: impl FnOnce(&mut Members)) {
        let mut all = self.0.lock();
        if let Some(members) = all.get_mut(namespace) {
            change(members);
            if members.len() == 0 {
                all.remove(namespace);
            }
        }
    }
}

#[derive(Debug, Default)]
struct Members {
    existing: HashSet<u64>,
    /// Pull secrets that do not exist yet, with the number of reservations of each.
    reserved: HashMap<u64, u32>,
}

impl Members {
    fn len(&self) -> usize {
        self.existing.len() + self.reserved.len()
    }
}

/// Counts a pull secret that is about to be made, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    census: Census,
    namespace: NamespaceName,
    name: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let name = self.name;
        self.census.change(&self.namespace, |members| {
            if let Some(reservations) = members.reserved.get_mut(&name) {
                *reservations -= 1;
                if *reservations == 0 {
                    members.reserved.remove(&name);
                }
            }
        });
    }
}

fn hash(name: &ObjectName) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> NamespacedName {
        NamespacedName::new(namespace, name).unwrap()
    }

    #[test]
    fn existing_and_reserved_pull_secrets_count_once_in_their_namespace() {
        let census = Census::default();
        let reserve = |name: &str| census.reserve(&key("a", name), 3);
        census.add(&key("a", "one"));
        census.add(&key("a", "one"));
        let two = reserve("two").unwrap();
        let three = reserve("three").unwrap();
        let refusal = reserve("four").unwrap_err();
        assert_eq!(refusal.reason, Reason::TooManyPullSecrets);
        // A pull secret that counts already needs no further room.
        let (again, known) = (reserve("two").unwrap(), reserve("one").unwrap());
        drop((again, known));
        assert!(reserve("four").is_err());
        assert!(census.reserve(&key("b", "four"), 3).is_ok());
        // The watch shows a reserved pull secret.
        census.add(&key("a", "two"));
        drop(two);
        assert!(reserve("four").is_err());
        drop(three);
        let four = reserve("four").unwrap();
        assert!(reserve("five").is_err());
        census.remove(&key("a", "one"));
        assert!(reserve("five").is_ok());
        drop(four);
        census.remove(&key("a", "two"));
        assert!(
            census.0.lock().is_empty(),
            "a namespace without pull secrets takes no memory"
        );
    }
}
