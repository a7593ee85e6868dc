//! The namespaces whose Pods never get a pull secret. The registration does not send these Pods; but a review may come from
//! somebody else than an API server, and a registration may be changed.

use crate::{
    kubernetes::is_subdomain,
    problem::{Problem, Reason},
};

/// Where the cluster's own Pods are.
const SYSTEM: &str = "kube-system";

/// The excluded namespaces.
#[derive(Clone, Debug)]
pub struct Excluded(Vec<String>);

// === impl Excluded ===

impl Excluded {
    /// kube-system, the webhook's own namespace where it is known, and these. An error is a sentence.
    pub fn new(own: Option<String>, namespaces: &[String]) -> Result<Self, String> {
        let named = namespaces.iter().filter(|name| !name.is_empty());
        let mut all = vec![SYSTEM.to_owned()];
        all.extend(own);
        all.extend(named.cloned());
        match all.iter().find(|name| !is_subdomain(name) || name.contains('.')) {
            Some(bad) => Err(format!(
                "--excluded-namespaces: {bad:?} is not the name of a namespace"
            )),
            None => Ok(Self(all)),
        }
    }

    /// Whether this namespace is one of them.
    pub fn contains(&self, namespace: &str) -> bool {
        self.0.iter().any(|excluded| excluded == namespace)
    }

    /// Refuses a Pod of an excluded namespace.
    pub fn check_pod(&self, namespace: &str) -> Result<(), Problem> {
        match self.contains(namespace) {
            false => Ok(()),
            true => Err(Problem::new(
                Reason::NamespaceExcluded,
                format!(
                    "namespace {namespace} is excluded, as kube-system, the webhook's own and those of --excluded-namespaces \
                     are: no Pod there gets a pull secret; run it in another namespace"
                ),
            )),
        }
    }

    /// Refuses a service account of an excluded namespace, whoever wants to use it.
    pub fn check_account(&self, namespace: &str, name: &str) -> Result<(), Problem> {
        match self.contains(namespace) {
            false => Ok(()),
            true => Err(Problem::new(
                Reason::NamespaceExcluded,
                format!(
                    "service account {namespace}/{name} is of an excluded namespace, as kube-system, the webhook's own and \
                     those of --excluded-namespaces are: no token is made for it; use a service account of another namespace"
                ),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(own: Option<&str>, named: &[&str]) -> Result<Excluded, String> {
        let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
        Excluded::new(own.map(str::to_owned), &named)
    }

    #[test]
    fn the_system_its_own_and_those_that_are_named_are_excluded_by_their_whole_names() {
        let all = excluded(Some("acr-pull-webhook"), &["", "infra", "monitoring"]).unwrap();
        for namespace in ["kube-system", "acr-pull-webhook", "infra", "monitoring"] {
            assert!(all.contains(namespace), "{namespace}");
            let problem = all.check_pod(namespace).unwrap_err();
            assert_eq!(problem.reason, Reason::NamespaceExcluded);
            assert!(all.check_account(namespace, "x").is_err());
        }
        for namespace in ["", "kube", "kube-system-2", "team-a", "inf"] {
            assert!(all.check_pod(namespace).is_ok(), "{namespace}");
            assert!(all.check_account(namespace, "x").is_ok());
        }
        assert!(excluded(None, &[]).unwrap().contains("kube-system"));
    }

    #[test]
    fn what_is_no_namespace_is_refused_at_the_start() {
        for bad in ["A", "a.b", "*", "a b", "-a"] {
            let refusal = excluded(None, &[bad]).unwrap_err();
            assert!(refusal.contains("--excluded-namespaces"), "{refusal}");
        }
    }
}
