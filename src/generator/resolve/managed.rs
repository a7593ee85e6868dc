//! A managed identity: the webhook's own, so only for namespaces that the administrator has named.

use super::{
    ManagedIdentityAuth, Referenced, Resolver,
    application::{check_client_id, check_tenant_id},
};
use crate::{
    generator::access_token::MAX_IDENTITY_ID,
    identity::{CloudEndpoints, ManagedIdentity, ManagedIdentityId, TenantIdSource},
    problem::{Problem, Reason},
    untrusted::UntrustedText,
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
        let given = auth.identity_id.as_deref().unwrap_or_default();
        let id = match given.trim() {
            _ if given.len() > MAX_IDENTITY_ID => {
                return Err(generator.invalid(&format!(
                    "has an id longer than {MAX_IDENTITY_ID} bytes in spec.auth.managedIdentity.identityId; correct it"
                )));
            }
            "" => ManagedIdentityId::SystemAssigned,
            // As External Secrets Operator tells them apart.
            id if id.contains('/') => {
                if !is_resource_id(id) {
                    return Err(generator.invalid(&format!(
                        "has the resource id {} in spec.auth.managedIdentity.identityId, which does not begin with \
                         /subscriptions/ or holds what is not in one; correct it",
                        UntrustedText::quoted(id)
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
            Some((id, from @ TenantIdSource::Generator { .. })) => {
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

/// The id of a resource in Azure: names between slashes. They may hold letters of any script, and the characters of the last
/// line. Source: <https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules>.
fn is_resource_id(id: &str) -> bool {
    // Azure compares them without regard to case.
    id.get(.."/subscriptions/".len())
        .is_some_and(|head| head.eq_ignore_ascii_case("/subscriptions/"))
        && id.chars().all(|c| c.is_alphanumeric() || "/-_.()".contains(c))
}
