//! The labels of the metrics. Every value comes from a fixed list, so that no object of the cluster adds series.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use std::fmt::{self, Write};

macro_rules! values {
    ($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident => $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$value_doc])* $value,)* }

        impl $name {
            /// All values.
            pub const ALL: &'static [Self] = &[$(Self::$value,)*];

            /// The value of the label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)* }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                encoder.write_str(self.as_str())
            }
        }
    };
}

values! {
    /// The answer to an admission request; the label `outcome`.
    AdmissionOutcome {
        /// The Pod needs no pull secrets.
        Untouched => "untouched",
        /// The Namespace is in audit mode, and the Pod was not changed.
        Audited => "audited",
        /// The Pod has its pull secrets.
        Patched => "patched",
        /// The Pod has its pull secrets, and the token of at least one is not available yet.
        PatchedWithoutToken => "patched_without_token",
        /// The Pod was refused.
        Denied => "denied",
        /// No decision was possible.
        Failed => "failed",
    }
}

values! {
    /// A call that is made to obtain a registry token; the label `hop`.
    UpstreamCall {
        /// The TokenRequest of the cluster's API server.
        TokenRequest => "TokenRequest",
        /// Entra's token endpoint.
        Entra => "Entra",
        /// The node's endpoint for managed identities.
        ManagedIdentity => "ManagedIdentity",
        /// The registry's `/oauth2/exchange`.
        RegistryExchange => "RegistryExchange",
        /// The registry's `/oauth2/token`.
        RegistryToken => "RegistryToken",
    }
}

values! {
    /// The result of a renewal or repair; the label `outcome`.
    RenewalOutcome {
        /// A scheduled renewal issued a new token.
        Renewed => "Renewed",
        /// A repair issued a new token, because a kubelet reported a failed pull or the `ACRPullSecret` was deleted.
        Repaired => "Repaired",
        /// No Pod confirmed that a repair is needed.
        NothingToDo => "NothingToDo",
        /// No new token was issued.
        Failed => "Failed",
    }
}

values! {
    /// The status of the Ready condition of an `ACRPullSecret`; the label `ready`.
    Ready {
        /// The Secret has a working token.
        True => "True",
        /// It does not.
        False => "False",
        /// There was no attempt yet.
        Unknown => "Unknown",
    }
}

/// The labels of a number of pull secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct PullSecretLabels {
    /// The status of the Ready condition.
    pub ready: Ready,
    /// The reason of the condition that is not True, or why there is none.
    pub reason: &'static str,
    /// Whether Pods use the pull secret, or may use it because the Pods are not known.
    pub used: bool,
}

impl PullSecretLabels {
    /// The reason of a pull secret whose last attempt succeeded.
    pub const ISSUED: &'static str = "Issued";
    /// The reason of a pull secret without conditions.
    pub const PENDING: &'static str = "Pending";
    /// The reason if the status has one that this program does not write, as after an upgrade or a forged status.
    pub const OTHER: &'static str = "Other";
    /// The reasons that are not those of a problem.
    pub const OTHER_REASONS: [&'static str; 3] = [Self::ISSUED, Self::PENDING, Self::OTHER];
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AdmissionLabels {
    pub outcome: AdmissionOutcome,
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RenewalLabels {
    pub outcome: RenewalOutcome,
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OutcomeLabels {
    pub outcome: AdmissionOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallResultLabels {
    pub hop: UpstreamCall,
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    pub hop: UpstreamCall,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WatchLabels {
    watch: &'static str,
}

impl WatchLabels {
    /// The labels of the watch with this name; the label omits the prefix `watch of`.
    pub fn new(name: &'static str) -> Self {
        Self {
            watch: name.strip_prefix("watch of ").unwrap_or(name),
        }
    }
}
