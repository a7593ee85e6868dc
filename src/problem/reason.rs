//! The stable reasons of problems.

use super::message;

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
    ($($(#[doc = $doc:literal])* $name:ident => $class:ident,)*) => {
        /// The stable reasons of a [`Problem`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[doc = $doc])* $name,)* }

        impl Reason {
            /// All reasons.
            pub const ALL: &'static [Reason] = &[$(Reason::$name,)*];

            /// The reason as it is written in metrics, conditions and messages.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }

            /// What the reason means, in one or two sentences, for `docs/reasons.md`.
            pub fn summary(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc),*).trim_start(),)* }
            }

            /// Who has to act before a retry can succeed.
            pub fn class(self) -> Class {
                match self { $(Reason::$name => Class::$class,)* }
            }

            /// The reason of this name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
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
    /// The API server refused a write for a reason that the webhook does not know.
    WriteForbidden => Forbidden,
    /// The webhook may not read an object: its Role or ClusterRole is incomplete.
    AccessForbidden => Forbidden,
    /// A ResourceQuota refused a write.
    QuotaExceeded => Forbidden,
    /// A ValidatingAdmissionPolicy or another admission webhook refused a write.
    PolicyDenied => Forbidden,
    /// A CustomResourceDefinition that the webhook needs is not installed.
    CrdNotInstalled => Forbidden,
    /// The namespace is being deleted.
    NamespaceTerminating => Forbidden,
    /// The API server refused to issue a token for the service account.
    TokenRequestForbidden => Forbidden,
    /// Entra refused the identity until somebody changes the configuration.
    EntraRefused => Forbidden,
    /// Entra refused an assertion because of its times: the clock of the API server is wrong.
    ClockSkewed => Forbidden,
    /// The registry refused the identity.
    RegistryRefused => Forbidden,
    /// DNS has no such registry.
    RegistryNotFound => Invalid,
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
    /// The call waited for one of the webhook's own concurrent calls until the API server's time-out.
    QueueTimeout => Upstream,
    /// A host outside the cluster cannot be resolved or connected to from the webhook's Pods.
    EgressBlocked => Upstream,
    /// The proxy does not connect the webhook to a host outside the cluster.
    ProxyFailed => Upstream,
    /// The certificate of a host outside the cluster is not trusted, for example because a proxy inspects TLS.
    CertificateNotTrusted => Upstream,
    /// A call to the Kubernetes API server failed, and a retry may succeed.
    ApiServerUnavailable => ApiServer,
    /// A warning: the kubelet does not use the pull secret for any image of the Pod.
    RegistryNotUsed => Invalid,
    /// A warning: an image of the Pod is not in the generator's `scope`.
    ImageOutsideScope => Invalid,
    /// A warning: the generator sets several identities, and one of them is used.
    SeveralIdentities => Invalid,
}

impl Reason {
    /// The address of the explanation of this reason.
    pub fn link(self) -> String {
        message::link(self.as_str())
    }

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
                | Self::RegistryNotFound
                | Self::CrossNamespaceNotAllowed
                | Self::ManagedIdentityNotAllowed
        )
    }
}
