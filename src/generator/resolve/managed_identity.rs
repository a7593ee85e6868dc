//! A managed identity. It belongs to the webhook, so only namespaces that the administrator has listed may use it.

use super::{
    GeneratorInNamespace, ManagedIdentityAuth, ResolveRules,
    application::{check_client_id, check_tenant_id},
};
use crate::{
    generator::access_token::MAX_IDENTITY_ID_LENGTH,
    identity::{CloudEndpoints, ManagedIdentity, ManagedIdentityId, TenantIdSource},
    problem::{Problem, Reason},
};

/// The first segment of every resource id.
const RESOURCE_ID_PREFIX: &str = "/subscriptions/";

impl ResolveRules {
    pub(super) fn managed_identity(
        &self,
        generator: GeneratorInNamespace<'_>,
        auth: &ManagedIdentityAuth,
        cloud: CloudEndpoints,
    ) -> Result<ManagedIdentity, Problem> {
        let reference = generator.reference;
        let namespace = generator.namespace;
        if !self.managed_identity_namespaces.contains(namespace) {
            return Err(Problem::new(
                Reason::ManagedIdentityNotAllowed,
                format!(
                    "{reference} uses a managed identity, which Pods of namespace {namespace} may not use: use \
                     workloadIdentity, or extend --managed-identity-namespaces"
                ),
            ));
        }
        let id = auth.identity_id.as_deref().unwrap_or_default();
        let id = match id.trim() {
            _ if id.len() > MAX_IDENTITY_ID_LENGTH => {
                return Err(generator.invalid(&format!(
                    "has an id longer than {MAX_IDENTITY_ID_LENGTH} bytes in spec.auth.managedIdentity.identityId"
                )));
            }
            "" => ManagedIdentityId::SystemAssigned,
            // External Secrets Operator distinguishes resource ids from client ids in the same way.
            id if id.contains('/') => {
                if !is_resource_id(id) {
                    return Err(generator.invalid(&format!(
                        "has an invalid resource id in spec.auth.managedIdentity.identityId: write {RESOURCE_ID_PREFIX}..."
                    ))
                    .quoting(id));
                }
                ManagedIdentityId::ResourceId(id.to_owned())
            }
            id => {
                let location = format!("spec.auth.managedIdentity.identityId of {reference}");
                check_client_id(id, &location)?;
                ManagedIdentityId::ClientId(id.to_owned())
            }
        };
        // --tenant-id does not apply: the node's tenant may differ from the Pods' tenant, and the registry does not
        // need it.
        let tenant_id = match self.tenant_id(generator) {
            Some((id, source @ TenantIdSource::Generator(..))) => {
                check_tenant_id(id, &generator.tenant_id_location(&source))?;
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

/// Whether this is a resource id of Azure: names separated by slashes. Names may contain letters of any script and the
/// punctuation below. Source:
/// <https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules>.
fn is_resource_id(id: &str) -> bool {
    // Azure compares resource ids case-insensitively.
    id.get(..RESOURCE_ID_PREFIX.len())
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case(RESOURCE_ID_PREFIX))
        && id.chars().all(|c| c.is_alphanumeric() || "/-_.()".contains(c))
}
