//! What is looked after, and by what: the API server, and all its namespaces or those of `--namespaces`.

use crate::{
    events::Events,
    kubernetes::is_subdomain,
    tasks::Tasks,
    telemetry::{Metrics, Readiness},
};
use kube::{Api, Client, Resource, core::NamespaceResourceScope};

/// What every watch needs.
#[derive(Clone)]
pub struct Cluster {
    /// The API server.
    pub client: Client,
    /// The namespaces.
    pub reach: Reach,
    /// Knows whether watches work.
    pub readiness: Readiness,
    /// Counts watches that fail and objects that cannot be read.
    pub metrics: Metrics,
    /// Reports watches that fail.
    pub events: Events,
    /// Runs the watches that last as long as the process.
    pub tasks: Tasks,
}

/// The places where objects of a kind are, each with its namespace where it is one.
pub type Places<K> = Vec<(Option<String>, Api<K>)>;

/// Empty for all.
#[derive(Clone, Debug, Default)]
pub struct Reach(Vec<String>);

// === impl Reach ===

impl Reach {
    /// Of these namespaces, each once; without any, of all. An error is a sentence.
    pub fn new(namespaces: &[String]) -> Result<Self, String> {
        let mut all: Vec<_> = namespaces
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        all.sort_unstable();
        all.dedup();
        match all.iter().find(|name| !is_subdomain(name) || name.contains('.')) {
            Some(bad) => Err(format!("--namespaces: {bad:?} is not the name of a namespace")),
            None => Ok(Self(all)),
        }
    }

    /// Whether that is the whole cluster, with what belongs to no namespace.
    pub fn is_cluster(&self) -> bool {
        self.0.is_empty()
    }
}

/// One place for all objects of a kind.
pub fn everywhere<K>(api: Api<K>) -> Places<K> {
    vec![(None, api)]
}

// === impl Cluster ===

impl Cluster {
    /// Reports by an Event about this replica's Pod that a place cannot be watched.
    pub fn report_failing_watch(&self, what: &'static str, namespace: Option<&str>, why: &str) {
        let place = namespace
            .map(|name| format!(" in namespace {name}"))
            .unwrap_or_default();
        self.events
            .warn_of_this_replica(what, "WatchFailing", &format!("the {what}{place} fails: {why}"));
    }

    /// Where the objects of a kind are that are looked after.
    pub fn places<K>(&self) -> Places<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let Reach(namespaces) = &self.reach;
        if namespaces.is_empty() {
            return everywhere(Api::all(self.client.clone()));
        }
        let namespaced = |name: &String| (Some(name.clone()), Api::namespaced(self.client.clone(), name));
        namespaces.iter().map(namespaced).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_taken_once_and_what_is_none_is_refused() {
        let reach = |names: &[&str]| Reach::new(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(reach(&[]).unwrap().is_cluster());
        assert!(reach(&[""]).unwrap().is_cluster());
        assert_eq!(reach(&["b", "a", "b"]).unwrap().0, ["a", "b"]);
        for bad in ["A", "a.b", "*", "a b", "-a"] {
            assert!(reach(&[bad]).unwrap_err().contains("--namespaces"), "{bad}");
        }
    }
}
