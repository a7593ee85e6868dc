//! What went wrong, in the three forms that everything downstream needs: whether
//! trying again can help, a short stable reason, and a sentence for a person.

use crate::foreign;
use std::{fmt, time::Duration};

/// A longer message is cut. The longest of ours, the advice on a federated credential, has some 3 KiB.
const MAX_MESSAGE: usize = 4096;

/// A failure on the way of a Pod to its pull secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The stable word, the same in messages, metrics and conditions.
    pub reason: Reason,
    /// What is wrong, where, and what to do. Never holds a credential.
    pub message: String,
    /// How long the other side asked us to wait before the next try.
    pub retry_after: Option<Duration>,
    /// Whether a host outside the cluster gave no answer at all.
    pub unreachable: bool,
}

/// Who has to act before another try can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The request names something invalid or missing: a person has to mend an object.
    Invalid,
    /// The request is understood and not permitted: a person has to grant something.
    Forbidden,
    /// Azure is slow, throttling, down, or has not yet heard of a change: time may mend it.
    Upstream,
    /// The Kubernetes API server did not do its part: `failurePolicy` decides.
    ApiServer,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $class:ident,)*) => {
        /// The stable reasons of a [`Problem`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason as metrics, conditions and messages spell it.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            /// Who has to act.
            pub fn class(self) -> Class {
                match self { $(Reason::$name => Class::$class,)* }
            }
        }
    };
}

reasons! {
    /// The AdmissionReview could not be understood.
    InvalidReview => Invalid,
    /// The Pod's annotation does not follow the grammar.
    InvalidAnnotation => Invalid,
    /// No generator of that name exists.
    GeneratorNotFound => Invalid,
    /// The generator exists and cannot be used as it is.
    GeneratorInvalid => Invalid,
    /// The generator's `scope` does not follow the grammar.
    ScopeInvalid => Invalid,
    /// The service account does not exist.
    ServiceAccountNotFound => Invalid,
    /// The service account names no Entra client id.
    ClientIdMissing => Invalid,
    /// Nothing says which Entra tenant to ask.
    TenantIdMissing => Invalid,
    /// The client or tenant id is none.
    IdentityInvalid => Invalid,
    /// The service principal's Secret does not exist.
    SecretNotFound => Invalid,
    /// The service principal's Secret does not hold what it should.
    SecretInvalid => Invalid,
    /// The webhook may not read the service principal's Secret.
    SecretReadForbidden => Forbidden,
    /// The registry is not under a permitted suffix, or of another cloud.
    RegistryNotAllowed => Forbidden,
    /// The generator points at another namespace's service account.
    CrossNamespaceNotAllowed => Forbidden,
    /// The namespace may not use the webhook's managed identity.
    ManagedIdentityNotAllowed => Forbidden,
    /// The machine has no such managed identity.
    ManagedIdentityRefused => Forbidden,
    /// No Pod of the namespace gets a pull secret.
    NamespaceExcluded => Forbidden,
    /// A Secret of the pull secret's name belongs to somebody else.
    SecretConflict => Forbidden,
    /// The namespace has as many ACRPullSecrets as it may.
    TooManyPullSecrets => Forbidden,
    /// A ResourceQuota, or another admission rule of the cluster, forbids the write.
    WriteForbidden => Forbidden,
    /// The namespace is being deleted.
    NamespaceTerminating => Forbidden,
    /// The API server will not issue a token for the service account.
    TokenRequestForbidden => Forbidden,
    /// Entra refused for good.
    EntraRefused => Forbidden,
    /// The registry refused the identity.
    RegistryRefused => Forbidden,
    /// The registry gave a token that does not open all repositories of the generator's `scope`.
    ScopeNotGranted => Forbidden,
    /// Entra knows no federated credential for the assertion (a fresh one takes minutes to spread).
    FederatedCredentialNotFound => Upstream,
    /// Entra asked us to slow down.
    EntraThrottled => Upstream,
    /// Entra was not reached, or did not answer properly.
    EntraUnavailable => Upstream,
    /// The machine's endpoint for managed identities was not reached, or did not answer properly.
    ManagedIdentityUnavailable => Upstream,
    /// The registry asked us to slow down.
    RegistryThrottled => Upstream,
    /// The registry was not reached, or did not answer properly.
    RegistryUnavailable => Upstream,
    /// The token was not there before the API server's time-out.
    UpstreamTimeout => Upstream,
    /// A call to our own API server failed.
    ApiServerUnavailable => ApiServer,
}

// === impl Reason ===

impl Reason {
    /// Whether the generator's own words are at fault, or what they point at.
    pub fn is_of_generator(self) -> bool {
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

// === impl Problem ===

impl Problem {
    /// A problem with its sentence. Whatever was put into it, the sentence is one line of a bounded length.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: foreign::message(message.into(), MAX_MESSAGE),
            retry_after: None,
            unreachable: false,
        }
    }

    /// The same problem, with the place before its sentence where it was met.
    pub fn at(self, place: impl fmt::Display) -> Self {
        let message = foreign::message(format!("{place}: {}", self.message), MAX_MESSAGE);
        Self { message, ..self }
    }

    /// The same problem, with the wait that the other side asked for.
    pub fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The same problem, of a host that gave no answer at all.
    pub fn unreachable(mut self) -> Self {
        self.unreachable = true;
        self
    }

    /// Whether waiting can help, without anybody changing an object.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_one_line_of_a_bounded_length() {
        let problem = Problem::new(Reason::EntraRefused, format!("a\n{}", "b".repeat(1 << 20)));
        assert!(problem.message.starts_with(r"a\nbb") && problem.message.ends_with('…'));
        assert!(problem.message.len() < MAX_MESSAGE + 8);
        let wait = Some(Duration::from_secs(7));
        let placed = problem.retry_after(wait).at("in a\rplace");
        assert!(placed.message.starts_with(r"in a\rplace: a\nbb"));
        assert!(placed.message.len() < MAX_MESSAGE + 8);
        assert_eq!(placed.retry_after, wait);
    }

    #[test]
    fn the_readme_explains_every_reason() {
        // Only who calls the webhook by hand meets InvalidReview.
        let readme = std::fs::read_to_string("README.md").unwrap();
        for reason in Reason::ALL.iter().filter(|r| **r != Reason::InvalidReview) {
            assert!(
                readme.contains(&format!("`{}`", reason.as_str())),
                "README.md does not tell of {reason:?}"
            );
        }
    }
}
