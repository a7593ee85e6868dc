//! The words for what a check finds, in addition to the reasons of the webhook itself.

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// What a check found. The reasons of the webhook are in `problem::Reason`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[doc = $doc])* $name,)* }

        impl Reason {
            /// The word, as it is printed.
            pub fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name),)* }
            }
        }

        /// All words with their meaning, for the reference.
        pub const REASONS: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),*)),)*];
    };
}

reasons! {
    /// Your permissions do not suffice for the check. This says nothing about the webhook.
    NotPermitted,
    /// The API server could not be reached, or rejected your credentials.
    ApiServerUnreachable,
    /// The version of Kubernetes is older than the oldest supported one.
    KubernetesTooOld,
    /// A CustomResourceDefinition does not have the version or the fields that this version of the webhook uses.
    CrdOutdated,
    /// The Deployment of the webhook does not exist in the namespace that was looked at.
    DeploymentNotFound,
    /// Not all replicas of the webhook are ready.
    DeploymentNotReady,
    /// The webhook has one replica, so that its replacement is an outage.
    SingleReplica,
    /// The flags or environment variables of the Deployment cannot be used.
    SettingsInvalid,
    /// There is no MutatingWebhookConfiguration of the webhook.
    RegistrationNotFound,
    /// A second MutatingWebhookConfiguration sends the same Pods to the webhook.
    RegistrationDuplicate,
    /// The MutatingWebhookConfiguration was changed, so that Pods are not sent as the webhook expects.
    RegistrationChanged,
    /// With failurePolicy Ignore, Pods that are created during an outage of the webhook can never pull.
    FailurePolicyIgnore,
    /// The webhook has not published its path in the MutatingWebhookConfiguration.
    PathNotPublished,
    /// The Service of the webhook does not exist, or has no ready endpoint.
    NoEndpoints,
    /// The MutatingWebhookConfiguration has no certificate authority, or one that did not sign the served certificate.
    CaBundleMismatch,
    /// The certificate that the webhook serves has expired.
    CertificateExpired,
    /// The certificate that the webhook serves should have been renewed.
    CertificateExpiresSoon,
    /// A ValidatingAdmissionPolicy of the installation is missing or not enforced.
    PolicyMissing,
    /// No replica holds the Lease, so that pull secrets are not renewed.
    NoLeader,
    /// The service account of the webhook lacks a permission.
    PermissionMissing,
    /// The issuer of service account tokens is an address that Entra cannot reach.
    IssuerNotPublic,
    /// The public OpenID discovery document of the issuer could not be fetched, or differs from the API server's.
    IssuerUnreachable,
    /// A replica of the webhook reports that it cannot reach Entra or a registry.
    EgressFailing,
    /// Azure's clock and the clock of the webhook's node differ.
    ClockSkew,
    /// The API server did not call the webhook for the Pod.
    NotCalled,
    /// The API server could not call the webhook.
    WebhookUnreachable,
    /// The webhook refuses the Pod.
    RefusedByWebhook,
    /// Another webhook or policy refused the Pod.
    RefusedByAnother,
    /// The namespace does not exist.
    NamespaceNotFound,
    /// The MutatingWebhookConfiguration does not select the namespace.
    NamespaceNotSelected,
    /// The identity cannot be checked from here.
    NotChecked,
    /// The registry has no such image.
    ImageNotFound,
    /// The registry refuses the token for the image.
    ImageForbidden,
    /// The annotation is on the workload and not on its Pod template.
    AnnotationOnWorkload,
    /// An annotation or label resembles acr-pull.dev/access-token, but has another key.
    AnnotationMisspelt,
    /// Neither the Pod nor its Namespace references a generator.
    NotRequested,
    /// The Pod requests a pull secret and was created without the webhook.
    NotInjected,
    /// The pull secret that the Pod references does not hold a working token.
    PullSecretNotReady,
    /// The object does not exist.
    ObjectNotFound,
    /// The file or the object cannot be explained.
    InputInvalid,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem;

    #[test]
    fn no_word_is_both_a_reason_of_the_webhook_and_of_a_check() {
        for (word, meaning) in REASONS {
            assert!(
                problem::Reason::ALL.iter().all(|reason| reason.as_str() != *word),
                "{word}"
            );
            assert!(meaning.trim().ends_with('.'), "{word}: {meaning}");
        }
        assert_eq!(Reason::NotCalled.as_str(), "NotCalled");
    }
}
