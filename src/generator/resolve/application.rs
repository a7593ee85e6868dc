//! What names an application in Entra: its client id, and its tenant.

use super::{Referenced, Resolver};
use crate::{
    generator::access_token::MAX_NAME,
    identity::{TenantIdSource, is_guid},
    problem::{Problem, Reason},
    registry::is_dns_name,
    untrusted::UntrustedText,
};

impl Resolver {
    /// The tenant where no annotation of a service account names it.
    pub(super) fn tenant<'a>(&'a self, generator: Referenced<'a>) -> Option<(&'a str, TenantIdSource)> {
        let of_generator = generator.spec.tenant_id.as_deref().map(trimmed);
        let of_generator = of_generator.filter(|id| !id.is_empty());
        if let Some(id) = of_generator {
            let command = generator.patch_command(r#""tenantId":"TENANT_ID""#);
            return Some((id, TenantIdSource::Generator { command }));
        }
        Some((self.tenant_id.as_deref()?, TenantIdSource::Flag))
    }
}

/// An id without the blanks around it; with them where it is longer than any, so that it is refused and not taken for absent.
pub(super) fn trimmed(id: &str) -> &str {
    if id.len() > MAX_NAME { id } else { id.trim() }
}

/// A client id is a GUID, a tenant id that or a domain name. Anything else would only be
/// carried through Kubernetes and Entra to a worse message.
pub(super) fn check_client_id(id: &str, place: &str) -> Result<(), Problem> {
    match is_guid(id) {
        true => Ok(()),
        false => Err(invalid("client id", id, "is not a GUID", place)),
    }
}

pub(super) fn check_tenant_id(id: &str, place: &str) -> Result<(), Problem> {
    match is_guid(id) || is_dns_name(id) && id.contains('.') {
        true => Ok(()),
        false => Err(invalid(
            "tenant id",
            id,
            "is neither a GUID nor a domain name",
            place,
        )),
    }
}

fn invalid(what: &str, id: &str, why: &str, place: &str) -> Problem {
    let id = UntrustedText::quoted(id);
    Problem::new(
        Reason::IdentityInvalid,
        format!("{what} {id} {why}; correct {place}"),
    )
}
