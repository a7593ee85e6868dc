//! The client id and the tenant id of an Entra application.

use super::{GeneratorInNamespace, MAX_SHOWN_BYTES, ResolveRules};
use crate::{
    identity::TenantIdSource,
    names::{MAX_NAME_LENGTH, is_dns_name, is_guid},
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};

impl ResolveRules {
    /// The tenant id for an identity that no annotation of a service account gives a tenant: that of the generator, or
    /// the default.
    pub(super) fn tenant_id<'a>(
        &'a self,
        generator: GeneratorInNamespace<'a>,
    ) -> Option<(&'a str, TenantIdSource)> {
        let of_generator = generator.spec.tenant_id.as_deref().map(trimmed);
        let of_generator = of_generator.filter(|id| !id.is_empty());
        if let Some(id) = of_generator {
            let source = TenantIdSource::Generator(generator.reference.clone(), generator.namespace.clone());
            return Some((id, source));
        }
        Some((self.tenant_id.as_deref()?, TenantIdSource::Flag))
    }
}

/// Trims an id. A text that is longer than any id stays as it is, so that it is refused and not treated as absent.
pub(super) fn trimmed(id: &str) -> &str {
    if id.len() > MAX_NAME_LENGTH { id } else { id.trim() }
}

/// Checks that a client id is a GUID. Entra would refuse anything else with a less useful message.
pub(super) fn check_client_id(id: &str, location: &str) -> Result<(), Problem> {
    if is_guid(id) {
        return Ok(());
    }
    Err(invalid("client id", id, "is not a GUID", location))
}

/// Checks that a tenant id is a GUID or a domain name.
pub(super) fn check_tenant_id(id: &str, location: &str) -> Result<(), Problem> {
    if is_guid(id) || is_dns_name(id) && id.contains('.') {
        return Ok(());
    }
    Err(invalid(
        "tenant id",
        id,
        "is neither a GUID nor a domain name",
        location,
    ))
}

fn invalid(what: &str, id: &str, why: &str, location: &str) -> Problem {
    let id = UntrustedText::quoted(id).at_most(MAX_SHOWN_BYTES);
    Problem::new(
        Reason::IdentityInvalid,
        format!("{what} {id} {why}: correct {location}"),
    )
}
