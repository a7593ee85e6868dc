//! The world's managed identities, all assigned to the one machine and the one App Service that the emulator plays.

use std::collections::HashSet;

use serde::Deserialize;

use super::Tenant;
use super::check::{guid, unique};
use crate::entra::access_token;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct ManagedIdentity {
    pub(crate) client_id: String,
    /// Without it, one that follows from the client id.
    object_id: Option<String>,
    /// `/subscriptions/…`: of the identity itself, or if it is system-assigned, of the machine.
    pub(crate) resource_id: Option<String>,
    pub(crate) tenant: String,
    /// Whether it is meant where a request names none.
    #[serde(default)]
    pub(crate) system_assigned: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct AppService {
    /// The value of `IDENTITY_HEADER`, a secret that requests must show.
    pub(crate) identity_header: String,
}

// === impl ManagedIdentity ===

impl ManagedIdentity {
    pub(crate) fn object_id(&self) -> String {
        self.object_id
            .clone()
            .unwrap_or_else(|| access_token::object_id(&self.client_id))
    }

    pub(super) fn check_all(all: &[Self], tenants: &[Tenant]) -> Result<(), String> {
        let (mut ids, mut resource_ids) = (HashSet::new(), HashSet::new());
        let mut system_assigned = None;
        for (i, identity) in all.iter().enumerate() {
            let at = format!("managedIdentities[{i}]");
            identity.check(&at, tenants)?;
            unique(&mut ids, &identity.client_id, &format!("{at}.clientId"))?;
            if let Some(id) = &identity.resource_id {
                unique(&mut resource_ids, id, &format!("{at}.resourceId"))?;
            }
            if identity.system_assigned
                && let Some(first) = system_assigned.replace(i)
            {
                return Err(format!(
                    "{at}.systemAssigned: managedIdentities[{first}] is it already, and a machine has only one"
                ));
            }
        }
        Ok(())
    }

    fn check(&self, at: &str, tenants: &[Tenant]) -> Result<(), String> {
        guid(&self.client_id, &format!("{at}.clientId"))?;
        if let Some(id) = &self.object_id {
            guid(id, &format!("{at}.objectId"))?;
        }
        if let Some(id) = &self.resource_id
            && !id.starts_with("/subscriptions/")
        {
            return Err(format!(
                "{at}.resourceId: `{id}` does not begin with /subscriptions/"
            ));
        }
        if !tenants.iter().any(|tenant| tenant.id == self.tenant) {
            return Err(format!(
                "{at}.tenant: there is no tenant with the id `{}`",
                self.tenant
            ));
        }
        Ok(())
    }
}

// === impl AppService ===

impl AppService {
    pub(super) fn check(&self) -> Result<(), String> {
        let usable =
            !self.identity_header.is_empty() && self.identity_header.bytes().all(|b| b.is_ascii_graphic());
        if usable {
            Ok(())
        } else {
            // The value is a secret: it is not repeated.
            Err("appService.identityHeader: give visible ASCII characters without blanks".to_owned())
        }
    }
}
