//! What one reference of a Pod asks for.

use super::{ACRPullSecret, AccountOf, GeneratorReference, name};
use crate::{
    generator::{Kind, Reference, ServiceAccount},
    kubernetes::is_subdomain,
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};

/// The service account of a Pod that names none.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// A Pod's request for one pull secret. It holds names only, so that it can be resolved again later.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullSecretRequest {
    kind: Kind,
    generator: Box<str>,
    namespace: Box<str>,
    service_account: Box<str>,
    /// False where the pull secret exists and the service account of its Pods is not known.
    is_service_account_known: bool,
}

impl PullSecretRequest {
    /// The request of a Pod in this namespace.
    pub fn new(namespace: &str, generator: Reference<'_>, service_account: Option<&str>) -> Self {
        Self {
            kind: generator.kind,
            generator: generator.name.into(),
            namespace: namespace.into(),
            service_account: service_account.unwrap_or(DEFAULT_SERVICE_ACCOUNT).into(),
            is_service_account_known: true,
        }
    }

    /// The request of the Pods for which this pull secret was made.
    pub fn of(owner: &ACRPullSecret) -> Result<Self, Problem> {
        let GeneratorReference { kind, name } = &owner.spec.generator;
        let invalid = |problem: String| Problem::new(Reason::GeneratorInvalid, problem);
        let known = [Kind::AccessToken, Kind::ClusterGenerator];
        let known = known.into_iter().find(|known| known.as_str() == kind);
        let kind = known.ok_or_else(|| {
            invalid(format!(
                "{} is not a kind of generator that this webhook supports",
                UntrustedText::quoted(kind)
            ))
        })?;
        let service_account = owner.spec.service_account_name.as_deref();
        // A user may have written the spec, and these names become part of paths and commands.
        let names = [Some(name.as_str()), service_account];
        if let Some(bad) = names.into_iter().flatten().find(|name| !is_subdomain(name)) {
            return Err(invalid(format!(
                "{} in its spec is not the name of an object",
                UntrustedText::quoted(bad)
            )));
        }
        let namespace = owner.metadata.namespace.as_deref().unwrap_or_default();
        let is_generators = owner.spec.service_account_of == Some(AccountOf::Generator);
        Ok(Self {
            // An older object does not say whose service account it names; most name the Pod's.
            is_service_account_known: service_account.is_some() && !is_generators,
            ..Self::new(namespace, Reference { kind, name }, service_account)
        })
    }

    /// The namespace of the Pod.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The service account of the Pod.
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// Whether Pods with this request run as this service account.
    pub fn is_service_account_known(&self) -> bool {
        self.is_service_account_known
    }

    /// The generator.
    pub fn reference(&self) -> Reference<'_> {
        Reference {
            kind: self.kind,
            name: &self.generator,
        }
    }

    /// Whether this request can lead to a pull secret of this name, whichever service account the generator uses.
    pub fn can_be_named(&self, candidate: &str) -> bool {
        let accounts = [
            ServiceAccount::OfPod(&self.service_account),
            ServiceAccount::NotNeeded,
        ];
        accounts
            .into_iter()
            .any(|account| name(self.reference(), account) == candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pull_secret::ACRPullSecretSpec;

    #[test]
    fn names_in_the_spec_of_a_pull_secret_are_checked() {
        let request = |kind: &str, name: &str, service_account: Option<&str>| {
            let generator = GeneratorReference {
                kind: kind.to_owned(),
                name: name.to_owned(),
            };
            let spec = ACRPullSecretSpec {
                generator,
                service_account_name: service_account.map(str::to_owned),
                service_account_of: None,
                service_account_namespace: None,
            };
            PullSecretRequest::of(&ACRPullSecret::new("acr-pull-x", spec))
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
