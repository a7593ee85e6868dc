//! Gets Entra tokens through `azure_identity`: for a service account with an assertion (TokenRequest API), for a
//! service principal with its client secret, and for a managed identity from the endpoint of its node.

mod aadsts;
mod assertion;
mod client_secret;
mod cloud;
mod entra;
mod entra_caller;
mod entra_error;
mod entra_transport;
mod managed;
mod managed_transport;
mod source;

use assertion::AssertionOrigin;
pub use assertion::{Assertion, AssertionSource};
pub use client_secret::ClientSecretReader;
pub use cloud::{Cloud, CloudEndpoints, CloudSetting, Clouds, DEFAULT_ACR_AUDIENCE};
pub use entra::EntraClient;
pub use entra_caller::{federated_credential_command, is_private_issuer};
pub use managed::ManagedIdentityClient;
pub use source::{EntraToken, TokenSource};

#[cfg(any(test, fuzzing))]
pub(crate) use {entra_transport::fuzz as fuzz_entra, managed_transport::fuzz as fuzz_managed_identity};

use crate::{
    names::{NamespaceName, ObjectName},
    reference::Reference,
};
use serde::Serialize;
use std::{error::Error, fmt, iter};

/// The error of our transport that azure_identity's error wraps.
fn cause_of<T: Error + 'static>(error: &azure_core::Error) -> Option<&T> {
    let first: &(dyn Error + 'static) = error;
    iter::successors(Some(first), |&error| error.source()).find_map(|error| error.downcast_ref())
}

/// The identity that requests an Entra token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Identity {
    /// A service account, which authenticates with an assertion.
    Workload(WorkloadIdentity),
    /// An Entra application, which authenticates with its client secret.
    ServicePrincipal(ServicePrincipal),
    /// A managed identity of the node that the webhook runs on.
    Managed(ManagedIdentity),
}

impl Identity {
    /// The kind of identity.
    pub fn kind(&self) -> &'static str {
        match self {
            Identity::Workload(_) => "WorkloadIdentity",
            Identity::ServicePrincipal(_) => "ServicePrincipal",
            Identity::Managed(_) => "ManagedIdentity",
        }
    }

    /// The workload identity, if this is one.
    pub fn workload(&self) -> Option<&WorkloadIdentity> {
        match self {
            Identity::Workload(workload) => Some(workload),
            _ => None,
        }
    }

    /// The Entra tenant id, if it is known.
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

/// A service account, and the Entra application that trusts it by a federated credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadIdentity {
    /// The namespace of the service account.
    pub namespace: NamespaceName,
    /// The service account that the assertion is issued for.
    pub service_account: ObjectName,
    /// The client id of the Entra application.
    pub client_id: String,
    /// The service account's annotation that holds the client id.
    #[serde(skip)]
    pub client_id_annotation: ForMessages<&'static str>,
    /// The Entra tenant id.
    pub tenant_id: String,
    /// Where the tenant id is configured.
    #[serde(skip)]
    pub tenant_id_source: ForMessages<TenantIdSource>,
    /// The audiences of the assertion.
    pub audiences: Vec<String>,
    /// The cloud's Entra host, and the audience of its registries.
    pub cloud: CloudEndpoints,
}

impl WorkloadIdentity {
    /// The subject of the assertion.
    pub fn subject(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.namespace, self.service_account
        )
    }
}

/// A service principal: an Entra application whose client id and client secret are stored in Secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePrincipal {
    /// Where the client id is stored.
    pub client_id: SecretKey,
    /// Where the client secret is stored.
    pub client_secret: SecretKey,
    /// The Entra tenant id.
    pub tenant_id: String,
    /// Where the tenant id is configured.
    #[serde(skip)]
    pub tenant_id_source: ForMessages<TenantIdSource>,
    /// The cloud's Entra host, and the audience of its registries.
    pub cloud: CloudEndpoints,
}

/// A reference to one value of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretKey {
    /// The namespace of the Secret.
    pub namespace: NamespaceName,
    /// The name of the Secret.
    pub name: ObjectName,
    /// The key of the value in the Secret's data.
    pub key: String,
}

impl fmt::Display for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {:?} of Secret {}/{}", self.key, self.namespace, self.name)
    }
}

/// A managed identity of the node that the webhook runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManagedIdentity {
    /// Which of the node's managed identities this is.
    pub id: ManagedIdentityId,
    /// The Entra tenant id, if the generator sets one. Only the registry receives it.
    pub tenant_id: Option<String>,
    /// The audience of the Entra token.
    pub acr_audience: String,
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

/// Selects one of a node's managed identities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum ManagedIdentityId {
    /// The system-assigned identity.
    SystemAssigned,
    /// A user-assigned identity, by its client id.
    ClientId(String),
    /// A user-assigned identity, by its Azure resource id.
    ResourceId(String),
}

/// A part of an identity that only messages depend on. It is neither compared nor serialized, because the token does
/// not depend on it.
#[derive(Clone, Debug)]
pub struct ForMessages<T>(pub T);

impl<T> PartialEq for ForMessages<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T> Eq for ForMessages<T> {}

/// Where a tenant id is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantIdSource {
    /// In this annotation of the service account.
    Annotation(&'static str),
    /// In the `spec.tenantId` of this generator, for Pods of this namespace.
    Generator(Reference, NamespaceName),
    /// In the webhook's `--tenant-id` flag.
    Flag,
}
