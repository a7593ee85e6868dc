//! What one reference of a Pod asks for.

use super::{ACRPullSecret, AccountOf, GeneratorReference, StoredKind, name};
use crate::{
    generator::ServiceAccount,
    names::{NamespaceName, ObjectName},
    problem::{Problem, Reason},
    reference::Reference,
    untrusted::UntrustedText,
};

/// A Pod's request for one pull secret. It holds names only, so that it can be resolved again later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullSecretRequest {
    generator: Reference,
    namespace: NamespaceName,
    service_account: Option<ObjectName>,
}

impl PullSecretRequest {
    /// The request of a Pod in this namespace.
    pub fn new(
        namespace: &NamespaceName,
        generator: Reference,
        service_account: Option<&ObjectName>,
    ) -> Self {
        let service_account = service_account.cloned();
        Self {
            generator,
            namespace: namespace.clone(),
            service_account: Some(service_account.unwrap_or_else(ObjectName::default_service_account)),
        }
    }

    /// The request of the Pods in this namespace for which this pull secret was made.
    pub fn of(namespace: &NamespaceName, owner: &ACRPullSecret) -> Result<Self, Problem> {
        let GeneratorReference { kind, name } = &owner.spec.generator;
        let invalid = |problem: String| Problem::new(Reason::GeneratorInvalid, problem);
        let kind = match kind {
            StoredKind::Known(kind) => *kind,
            StoredKind::Unknown(kind) => {
                let kind = UntrustedText::quoted(kind).at_most(64);
                return Err(invalid(format!(
                    "this webhook does not support generators of kind {kind}"
                )));
            }
        };
        // A user may have written the spec.
        let parse = |name: &str| {
            ObjectName::new(name).ok_or_else(|| {
                let name = UntrustedText::quoted(name).at_most(64);
                invalid(format!(
                    "{name} in the spec of the ACRPullSecret is not a valid object name"
                ))
            })
        };
        let name = parse(name)?;
        let service_account = owner
            .spec
            .service_account_name
            .as_deref()
            .map(parse)
            .transpose()?;
        let is_generators = owner.spec.service_account_of == Some(AccountOf::Generator);
        Ok(Self {
            generator: Reference { kind, name },
            namespace: namespace.clone(),
            // An older object does not say whose service account it names; most name the Pod's.
            service_account: service_account.filter(|_| !is_generators),
        })
    }

    /// The namespace of the Pod.
    pub fn namespace(&self) -> &NamespaceName {
        &self.namespace
    }

    /// The service account of the Pod. `None` if the pull secret exists and the service account of its Pods is not
    /// known.
    pub fn service_account(&self) -> Option<&ObjectName> {
        self.service_account.as_ref()
    }

    /// The generator.
    pub fn reference(&self) -> &Reference {
        &self.generator
    }

    /// Whether this request can lead to a pull secret of this name, whichever service account the generator uses.
    pub fn can_be_named(&self, candidate: &ObjectName) -> bool {
        let of_pod = self.service_account.clone().map(ServiceAccount::OfPod);
        let mut accounts = [Some(ServiceAccount::NotNeeded), of_pod].into_iter().flatten();
        accounts.any(|account| name(&self.generator, &account) == *candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pull_secret::ACRPullSecretSpec, reference::Kind};
    use serde_json::json;

    #[test]
    fn names_in_the_spec_of_a_pull_secret_are_checked() {
        let request = |kind: &str, name: &str, service_account: Option<&str>| {
            let generator = serde_json::from_value(json!({"kind": kind, "name": name})).unwrap();
            let spec = ACRPullSecretSpec {
                generator,
                service_account_name: service_account.map(str::to_owned),
                service_account_of: None,
                service_account_namespace: None,
            };
            let namespace = NamespaceName::new("team-a").unwrap();
            PullSecretRequest::of(&namespace, &ACRPullSecret::new("acr-pull-x", spec))
        };
        let known = Kind::AccessToken.as_str();
        assert!(request(known, "contoso", None).is_ok());
        assert!(request(known, "contoso", Some("app")).is_ok());
        for (kind, name, account) in [
            ("Secret", "contoso", None),
            (known, "../../secrets/x", None),
            (known, "x'; touch /tmp/pwned; '", None),
            (known, "contoso", Some("app?x=1")),
            (known, "contoso", Some("")),
        ] {
            let problem = request(kind, name, account).unwrap_err();
            assert_eq!(problem.reason, Reason::GeneratorInvalid, "{problem}");
        }
    }
}
