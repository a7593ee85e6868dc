//! The webhook's error type. It states whether a retry can succeed, a short stable reason, and a message for a person.

use crate::untrusted;
use std::{fmt, time::Duration};

/// Longer messages are truncated. The longest one, about a missing federated credential, has about 3 KiB.
const MAX_MESSAGE_BYTES: usize = 4096;

/// A failure that affects the pull secret of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable reason, the same in messages, metrics and conditions.
    pub reason: Reason,
    /// What is wrong, where, and what to do. The message never contains a credential.
    pub message: String,
    /// The wait before the next try that the called service asked for.
    pub retry_after: Option<Duration>,
    /// Whether a host outside the cluster did not respond.
    pub unreachable: bool,
}

impl Problem {
    /// A problem with its message, which is truncated if necessary and printed on one line.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: untrusted::sanitize(message.into(), MAX_MESSAGE_BYTES),
            retry_after: None,
            unreachable: false,
        }
    }

    /// The same problem, with the place where it occurred in front of its message.
    pub fn at(self, place: impl fmt::Display) -> Self {
        let message = untrusted::sanitize(format!("{place}: {}", self.message), MAX_MESSAGE_BYTES);
        Self { message, ..self }
    }

    /// The same problem, with the wait that the called service asked for.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The same problem, marked as caused by a host that did not respond.
    pub fn unreachable(mut self) -> Self {
        self.unreachable = true;
        self
    }

    /// Whether a later try may succeed without a change of an object.
    pub fn is_transient(&self) -> bool {
        matches!(self.reason.class(), Class::Upstream | Class::ApiServer)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.message)
    }
}

impl std::error::Error for Problem {}

/// Who has to act before a retry can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request refers to something invalid or missing: a person has to correct an object.
    Invalid,
    /// The request is valid and not permitted: a person has to grant something.
    Forbidden,
    /// Azure is slow, throttling or unavailable, or has not applied a change yet: a later try may succeed.
    Upstream,
    /// A call to the Kubernetes API server failed: `failurePolicy` decides.
    ApiServer,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $class:ident,)*) => {
        /// The stable reasons of a [`Problem`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason as it is written in metrics, conditions and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            /// Who has to act before a retry can succeed.
            pub fn class(self) -> Class {
                match self { $(Reason::$name => Class::$class,)* }
            }
        }
    };
}

reasons! {
    /// The AdmissionReview cannot be parsed.
    InvalidReview => Invalid,
    /// The Pod's annotation does not follow the grammar.
    InvalidAnnotation => Invalid,
    /// The generator that the Pod names does not exist.
    GeneratorNotFound => Invalid,
    /// The generator exists, but its spec cannot be used.
    GeneratorInvalid => Invalid,
    /// The generator's `scope` does not follow the grammar.
    ScopeInvalid => Invalid,
    /// The service account does not exist.
    ServiceAccountNotFound => Invalid,
    /// The service account has no Entra client id.
    ClientIdMissing => Invalid,
    /// No Entra tenant id is configured.
    TenantIdMissing => Invalid,
    /// The client id or the tenant id is malformed.
    IdentityInvalid => Invalid,
    /// The service principal's Secret does not exist.
    SecretNotFound => Invalid,
    /// The service principal's Secret does not hold a valid client id and client secret.
    SecretInvalid => Invalid,
    /// The webhook may not read the service principal's Secret.
    SecretReadForbidden => Forbidden,
    /// The registry is not under a permitted suffix, or belongs to another cloud than the generator.
    RegistryNotAllowed => Forbidden,
    /// The generator refers to a service account of another namespace, which does not allow it.
    CrossNamespaceNotAllowed => Forbidden,
    /// The namespace may not use the webhook's managed identity.
    ManagedIdentityNotAllowed => Forbidden,
    /// The node does not have the managed identity.
    ManagedIdentityRefused => Forbidden,
    /// The namespace is excluded from pull secrets.
    NamespaceExcluded => Forbidden,
    /// A Secret with the pull secret's name exists, and the webhook does not manage it.
    SecretConflict => Forbidden,
    /// The namespace has the maximum number of ACRPullSecrets.
    TooManyPullSecrets => Forbidden,
    /// The API server refused a call, for example because of a ResourceQuota or an admission policy.
    WriteForbidden => Forbidden,
    /// The namespace is being deleted.
    NamespaceTerminating => Forbidden,
    /// The API server refused to issue a token for the service account.
    TokenRequestForbidden => Forbidden,
    /// Entra refused the identity until somebody changes the configuration.
    EntraRefused => Forbidden,
    /// The registry refused the identity.
    RegistryRefused => Forbidden,
    /// The registry issued a token that does not grant all of the generator's `scope`.
    ScopeNotGranted => Forbidden,
    /// Entra has no matching federated credential for the assertion. A new one takes effect after some minutes.
    FederatedCredentialNotFound => Upstream,
    /// The registry gives the identity no access. A new role assignment takes effect after some minutes.
    RoleAssignmentNotFound => Upstream,
    /// Entra is throttling requests.
    EntraThrottled => Upstream,
    /// Entra could not be reached, or its response has no usable content.
    EntraUnavailable => Upstream,
    /// The node's managed identity endpoint could not be reached, or its response has no usable content.
    ManagedIdentityUnavailable => Upstream,
    /// The registry is throttling requests.
    RegistryThrottled => Upstream,
    /// The registry could not be reached, or its response has no usable content.
    RegistryUnavailable => Upstream,
    /// The token was not issued before the API server's time-out.
    UpstreamTimeout => Upstream,
    /// A call to the Kubernetes API server failed, and a retry may succeed.
    ApiServerUnavailable => ApiServer,
}

impl Reason {
    /// Whether the cause may be a change in Azure that has not taken effect yet. Otherwise a person has to act, so the
    /// problem is reported while an earlier token still works.
    pub fn awaits_propagation(self) -> bool {
        matches!(
            self,
            Self::FederatedCredentialNotFound | Self::RoleAssignmentNotFound
        )
    }

    /// Whether the cause is the generator's spec, or an object that the spec refers to.
    pub fn concerns_generator(self) -> bool {
        matches!(
            self,
            Self::GeneratorInvalid
                | Self::ScopeInvalid
                | Self::ScopeNotGranted
                | Self::TenantIdMissing
                | Self::SecretNotFound
                | Self::SecretInvalid
                | Self::RegistryNotAllowed
                | Self::CrossNamespaceNotAllowed
                | Self::ManagedIdentityNotAllowed
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_one_line_of_limited_length() {
        let problem = Problem::new(Reason::EntraRefused, format!("a\n{}", "b".repeat(1 << 20)));
        assert!(problem.message.starts_with(r"a\nbb") && problem.message.ends_with('…'));
        assert!(problem.message.len() < MAX_MESSAGE_BYTES + 8);
        let wait = Some(Duration::from_secs(7));
        let placed = problem.retry_after(wait).at("in a\rplace");
        assert!(placed.message.starts_with(r"in a\rplace: a\nbb"));
        assert!(placed.message.len() < MAX_MESSAGE_BYTES + 8);
        assert_eq!(placed.retry_after, wait);
    }

    #[test]
    fn the_readme_explains_every_reason() {
        // Only a client other than the API server can get InvalidReview.
        let readme = std::fs::read_to_string("README.md").unwrap();
        for reason in Reason::ALL.iter().filter(|r| **r != Reason::InvalidReview) {
            assert!(
                readme.contains(&format!("`{}`", reason.as_str())),
                "README.md does not explain {reason:?}"
            );
        }
    }
}
