//! Checks a world for mistakes that its types permit.

use super::{Registry, Spec};
use hyper::Uri;

impl Spec {
    /// The error contains the field.
    pub fn check(&self) -> Result<(), String> {
        for (i, registry) in self.registries.iter().enumerate() {
            let field = format!("registries[{i}]");
            self.check_rights(&field, registry)?;
            let uri = registry.upstream.parse::<Uri>().ok();
            if !uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.path() == "/") {
                let upstream = &registry.upstream;
                return Err(format!(
                    "{field}.upstream: `{upstream}` is not of the form http://host:port"
                ));
            }
        }
        Ok(())
    }

    fn check_rights(&self, field: &str, registry: &Registry) -> Result<(), String> {
        let id = &registry.tenant;
        let Some(tenant) = self.tenants.iter().find(|tenant| tenant.id == *id) else {
            return Err(format!("{field}.tenant: there is no tenant with the id `{id}`"));
        };
        for (i, right) in registry.rights.iter().enumerate() {
            let field = format!("{field}.rights[{i}]");
            right
                .check()
                .map_err(|problem| format!("{field}.repositories: {problem}"))?;
            let client_id = &right.client_id;
            let is_managed = self
                .managed_identities
                .iter()
                .any(|identity| identity.client_id.eq_ignore_ascii_case(client_id));
            if !is_managed && tenant.application(client_id).is_none() {
                return Err(format!(
                    "{field}.clientId: tenant {id} has no application or managed identity `{client_id}`"
                ));
            }
        }
        Ok(())
    }
}
