//! The cluster that the webhook serves: its API server, and the namespaces in scope, all or those of `--namespaces`.

use crate::{
    events::Events,
    names::NamespaceName,
    start_error::StartError,
    tasks::Tasks,
    telemetry::{Metrics, Readiness},
};
use kube::{Api, Client, Resource, core::NamespaceResourceScope};

/// What every watch needs.
#[derive(Clone)]
pub struct Cluster {
    /// The client of the API server.
    pub client: Client,
    /// The namespaces that are watched.
    pub namespaces: NamespaceScope,
    /// Records whether watches work.
    pub readiness: Readiness,
    /// Counts failing watches and unreadable objects.
    pub metrics: Metrics,
    /// Reports failing watches.
    pub events: Events,
    /// Runs the watches that last as long as the process.
    pub tasks: Tasks,
}

impl Cluster {
    /// Reports by an Event about this replica's Pod that a watch fails.
    pub fn report_failing_watch(&self, watch: &'static str, namespace: Option<&NamespaceName>, why: &str) {
        let scope = namespace
            .map(|name| format!(" in namespace {name}"))
            .unwrap_or_default();
        self.events
            .warn_about_own_pod(watch, "WatchFailing", &format!("the {watch}{scope} fails: {why}"));
    }

    /// The scopes in which to watch a namespaced kind: each namespace of `--namespaces`, or the whole cluster.
    pub fn watch_scopes<K>(&self) -> WatchScopes<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let NamespaceScope(namespaces) = &self.namespaces;
        if namespaces.is_empty() {
            return cluster_wide(Api::all(self.client.clone()));
        }
        let namespaced =
            |name: &NamespaceName| (Some(name.clone()), Api::namespaced(self.client.clone(), name));
        namespaces.iter().map(namespaced).collect()
    }
}

/// One API per watched namespace, or one API without a namespace for the whole cluster.
pub type WatchScopes<K> = Vec<(Option<NamespaceName>, Api<K>)>;

/// A single scope that covers the whole cluster.
pub fn cluster_wide<K>(api: Api<K>) -> WatchScopes<K> {
    vec![(None, api)]
}

/// Which namespaces are watched. Empty means the whole cluster.
#[derive(Clone, Debug, Default)]
pub struct NamespaceScope(Vec<NamespaceName>);

impl NamespaceScope {
    /// The scope of `--namespaces`, without duplicates and empty names.
    pub fn new(namespaces: &[String]) -> Result<Self, StartError> {
        let mut all = NamespaceName::parse_flag("--namespaces", namespaces)?;
        all.sort_unstable();
        all.dedup();
        Ok(Self(all))
    }

    /// Whether the whole cluster is watched, including cluster-scoped objects.
    pub fn is_cluster_wide(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_deduplicated_and_invalid_names_are_refused() {
        let scope =
            |names: &[&str]| NamespaceScope::new(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        assert!(scope(&[]).unwrap().is_cluster_wide());
        assert!(scope(&[""]).unwrap().is_cluster_wide());
        assert_eq!(scope(&["b", "a", "b"]).unwrap().0, ["a", "b"]);
        assert!(
            scope(&["a", &"a".repeat(64)])
                .unwrap_err()
                .to_string()
                .contains("--namespaces")
        );
    }
}
