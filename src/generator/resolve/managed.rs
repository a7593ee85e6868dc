//! A managed identity: the webhook's own, so only for namespaces that the administrator has named.

use super::{
    ManagedIdentityAuth, Referenced, Resolver,
    application::{check_client_id, check_tenant_id},
};
use crate::{
    identity::{CloudEndpoints, ManagedIdentity, ManagedIdentityId, TenantFrom},
    problem::{Problem, Reason},
};

impl Resolver {
    pub(super) fn managed(
        &self,
        generator: Referenced<'_>,
        auth: &ManagedIdentityAuth,
        cloud: CloudEndpoints,
    ) -> Result<ManagedIdentity, Problem> {
        let (reference, namespace) = (generator.reference, generator.namespace);
        if !self.managed_identity_namespaces.contains(namespace) {
            return Err(Problem::new(
                Reason::ManagedIdentityNotAllowed,
                format!(
                    "{reference} uses a managed identity, which is the webhook's own, and Pods of namespace {namespace} may \
                     not use it; set spec.auth.workloadIdentity instead, or ask your cluster administrator to add \
                     {namespace} to --managed-identity-namespaces"
                ),
            ));
        }
        let id = match auth.identity_id.as_deref().map(str::trim).unwrap_or_default() {
            "" => ManagedIdentityId::SystemAssigned,
            // As External Secrets Operator tells them apart.
            id if id.contains('/') => {
                // Azure compares resource ids without regard to case.
                if !id.to_ascii_lowercase().starts_with("/subscriptions/") {
                    return Err(generator.invalid(&format!(
                        "has the resource id {id:?} in spec.auth.managedIdentity.identityId, which does not begin with \
                         /subscriptions/; correct it"
                    )));
                }
                ManagedIdentityId::ResourceId(id.to_owned())
            }
            id => {
                let place = format!("spec.auth.managedIdentity.identityId of {reference}");
                check_client_id(id, &place)?;
                ManagedIdentityId::ClientId(id.to_owned())
            }
        };
        // Not --tenant-id: the machine's tenant need not be the Pods', and the registry does without.
        let tenant_id = match self.tenant(generator) {
            Some((id, from @ TenantFrom::Generator { .. })) => {
                check_tenant_id(id, &generator.tenant_place(&from))?;
                Some(id.to_owned())
            }
            _ => None,
        };
        Ok(ManagedIdentity {
            id,
            tenant_id,
            acr_audience: cloud.acr_audience,
        })
    }
}
