//! Who asks Entra, and the token Entra gives: to a service account by its assertion
//! (TokenRequest API), to a service principal by its client secret, to a managed identity
//! by the endpoint of its machine; each by `azure_identity`.

mod advice;
mod assertion;
mod client_secret;
mod cloud;
mod entra;
mod entra_error;
mod entra_transport;
mod managed;
mod managed_transport;
mod source;

pub use assertion::{Assertion, AssertionSource};
pub use client_secret::ClientSecrets;
pub use cloud::{Cloud, CloudEndpoints, CloudSetting, Clouds, DEFAULT_ACR_AUDIENCE};
pub use entra::EntraClient;
pub use managed::ManagedIdentityClient;
pub use source::{EntraToken, TokenSource};

#[cfg(any(test, fuzzing))]
pub(crate) use {entra_transport::fuzz as fuzz_entra, managed_transport::fuzz as fuzz_managed_identity};

use serde::Serialize;
use std::fmt;

/// Who asks Entra.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Identity {
    /// A service account, by its assertion.
    Workload(WorkloadIdentity),
    /// An application, by its client secret.
    ServicePrincipal(ServicePrincipal),
    /// The webhook's own managed identity.
    Managed(ManagedIdentity),
}

/// A workload identity: a service account, and the Entra application that trusts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadIdentity {
    /// The namespace of the service account.
    pub namespace: String,
    /// The service account that the assertion is made for.
    pub service_account: String,
    /// The Entra application (client) id.
    pub client_id: String,
    /// The annotation that says so.
    #[serde(skip)]
    pub client_id_annotation: &'static str,
    /// The Entra tenant id.
    pub tenant_id: String,
    /// What says so.
    #[serde(skip)]
    pub tenant_from: TenantFrom,
    /// The audiences of the assertion.
    pub audiences: Vec<String>,
    /// Whose Entra is asked, and for which audience.
    pub cloud: CloudEndpoints,
}

/// A service principal: an application whose id and secret are kept in Secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePrincipal {
    /// Where the client id is kept.
    pub client_id: SecretKey,
    /// Where the client secret is kept.
    pub client_secret: SecretKey,
    /// The Entra tenant id.
    pub tenant_id: String,
    /// What says so.
    #[serde(skip)]
    pub tenant_from: TenantFrom,
    /// Whose Entra is asked, and for which audience.
    pub cloud: CloudEndpoints,
}

/// One value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretKey {
    /// The namespace of the Secret.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The key in it.
    pub key: String,
}

/// A managed identity of the machine that the webhook runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagedIdentity {
    /// Which one.
    pub id: ManagedIdentityId,
    /// Its Entra tenant id, where the generator names one; only the registry is told.
    pub tenant_id: Option<String>,
    /// The audience of a token for a registry.
    pub acr_audience: String,
}

/// Which of a machine's managed identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ManagedIdentityId {
    /// The machine's own.
    SystemAssigned,
    /// A user-assigned one, by its client id.
    ClientId(String),
    /// A user-assigned one, by its Azure resource id.
    ResourceId(String),
}

/// What names the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantFrom {
    /// This annotation of the service account.
    Annotation(&'static str),
    /// The generator's `spec.tenantId`.
    Generator {
        /// The command that changes it.
        command: String,
    },
    /// The webhook's `--tenant-id`.
    Flag,
}

// === impl Identity ===

impl Identity {
    /// The kind of identity.
    pub fn kind(&self) -> &'static str {
        match self {
            Identity::Workload(_) => "WorkloadIdentity",
            Identity::ServicePrincipal(_) => "ServicePrincipal",
            Identity::Managed(_) => "ManagedIdentity",
        }
    }

    /// The workload identity, where it is one.
    pub fn workload(&self) -> Option<&WorkloadIdentity> {
        match self {
            Identity::Workload(workload) => Some(workload),
            _ => None,
        }
    }

    /// The Entra tenant id, where it is known.
    pub fn tenant_id(&self) -> Option<&str> {
        match self {
            Identity::Workload(workload) => Some(&workload.tenant_id),
            Identity::ServicePrincipal(principal) => Some(&principal.tenant_id),
            Identity::Managed(managed) => managed.tenant_id.as_deref(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Workload(WorkloadIdentity {
                namespace,
                service_account,
                ..
            }) => write!(f, "service account {namespace}/{service_account}"),
            Identity::ServicePrincipal(principal) => {
                let SecretKey { namespace, name, .. } = &principal.client_secret;
                write!(f, "the service principal of Secret {namespace}/{name}")
            }
            Identity::Managed(managed) => managed.fmt(f),
        }
    }
}

impl fmt::Display for ManagedIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            ManagedIdentityId::SystemAssigned => f.write_str("the system-assigned managed identity"),
            ManagedIdentityId::ClientId(id) => write!(f, "the managed identity with client id {id}"),
            ManagedIdentityId::ResourceId(id) => write!(f, "the managed identity {id}"),
        }
    }
}

// === impl WorkloadIdentity ===

impl WorkloadIdentity {
    /// The subject that Entra sees.
    pub fn subject(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.namespace, self.service_account
        )
    }
}

// === impl SecretKey ===

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?} of Secret {}/{}", self.key, self.namespace, self.name)
    }
}

/// Whether this is a GUID as Azure writes them.
pub fn is_guid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}
