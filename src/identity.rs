//! Who asks Entra, and the token Entra gives: a service account's assertion
//! (TokenRequest API) exchanged by `azure_identity`.

mod assertion;
mod cloud;
mod entra;
mod entra_error;
mod entra_transport;

pub use assertion::{Assertion, AssertionSource};
pub use cloud::{Cloud, CloudEndpoints, CloudSetting, Clouds, DEFAULT_ACR_AUDIENCE};
pub use entra::{EntraClient, EntraToken};

/// A workload identity: a service account, and the Entra application that trusts it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WorkloadIdentity {
    /// The namespace of the service account.
    pub namespace: String,
    /// The service account that the assertion is made for.
    pub service_account: String,
    /// The Entra application (client) id.
    pub client_id: String,
    /// The Entra tenant id.
    pub tenant_id: String,
    /// The audiences of the assertion.
    pub audiences: Vec<String>,
    /// Whose Entra is asked, and for which audience.
    pub cloud: CloudEndpoints,
}

impl WorkloadIdentity {
    /// The subject that Entra sees.
    pub fn subject(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.namespace, self.service_account
        )
    }
}
