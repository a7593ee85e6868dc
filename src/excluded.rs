//! The namespaces whose Pods never get a pull secret. The webhook registration excludes these namespaces too, but a
//! client other than the API server may send a review, and the registration may be changed.

use crate::{
    names::{NamespaceName, NamespacedName},
    problem::{Problem, Reason},
    start_error::StartError,
};

/// The namespace of the cluster's own Pods.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// The excluded namespaces.
#[derive(Clone, Debug)]
pub struct ExcludedNamespaces {
    /// The webhook's own namespace, if it is known.
    own: Option<NamespaceName>,
    /// The namespaces of `--excluded-namespaces`.
    listed: Vec<NamespaceName>,
}

impl ExcludedNamespaces {
    /// Excludes kube-system, the webhook's own namespace if it is known, and `namespaces`.
    pub fn new(own: Option<String>, namespaces: &[String]) -> Result<Self, StartError> {
        let parse_own = |own: String| {
            let message = || format!("the Pod's own namespace {own:?} is not a valid namespace name");
            NamespaceName::new(&own).ok_or_else(|| StartError::Outcome(message()))
        };
        Ok(Self {
            own: own.map(parse_own).transpose()?,
            listed: NamespaceName::parse_flag("--excluded-namespaces", namespaces)?,
        })
    }

    /// Whether this namespace is excluded.
    pub fn contains(&self, namespace: &str) -> bool {
        namespace == SYSTEM_NAMESPACE
            || self
                .own
                .iter()
                .chain(&self.listed)
                .any(|excluded| *excluded == namespace)
    }

    /// Refuses a Pod of an excluded namespace.
    pub fn check_pod(&self, namespace: &str) -> Result<(), Problem> {
        if !self.contains(namespace) {
            return Ok(());
        }
        Err(Problem::new(
            Reason::NamespaceExcluded,
            format!(
                "Pods of namespace {namespace} get no pull secrets, because it is excluded: run the Pod in another namespace"
            ),
        ))
    }

    /// Refuses a service account of an excluded namespace, also for Pods of other namespaces.
    pub fn check_service_account(&self, account: &NamespacedName) -> Result<(), Problem> {
        if !self.contains(&account.namespace) {
            return Ok(());
        }
        Err(Problem::new(
            Reason::NamespaceExcluded,
            format!(
                "service account {account} is in an excluded namespace, and gets no token: use one of another namespace"
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(own: Option<&str>, named: &[&str]) -> Result<ExcludedNamespaces, StartError> {
        let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
        ExcludedNamespaces::new(own.map(str::to_owned), &named)
    }

    #[test]
    fn system_own_and_listed_namespaces_are_excluded_by_exact_name() {
        let account = |namespace: &str| NamespacedName::new(namespace, "x").unwrap();
        let all = excluded(Some("acr-pull-webhook"), &["", "infra", "monitoring"]).unwrap();
        for namespace in ["kube-system", "acr-pull-webhook", "infra", "monitoring"] {
            assert!(all.contains(namespace), "{namespace}");
            let problem = all.check_pod(namespace).unwrap_err();
            assert_eq!(problem.reason, Reason::NamespaceExcluded);
            assert!(all.check_service_account(&account(namespace)).is_err());
        }
        for namespace in ["kube", "kube-system-2", "team-a", "inf"] {
            assert!(all.check_pod(namespace).is_ok(), "{namespace}");
            assert!(all.check_service_account(&account(namespace)).is_ok());
        }
        assert!(excluded(None, &[]).unwrap().contains("kube-system"));
    }

    #[test]
    fn an_invalid_namespace_name_is_refused_at_start() {
        for invalid in ["a.b", &"a".repeat(64)] {
            let error = excluded(None, &["infra", invalid]).unwrap_err();
            assert!(error.to_string().contains("--excluded-namespaces"), "{error}");
            let error = excluded(Some(invalid), &[]).unwrap_err();
            assert!(error.to_string().contains("own namespace"), "{error}");
        }
    }
}
