//! What a world must be beyond what the types of its fields say. Each problem is told with its place.

use std::collections::HashSet;

use super::{AppService, Issuer, ManagedIdentity, Registry, Spec, Tenant};
use crate::acr::access::Right;
use crate::jwt::KeySet;

// === impl Spec ===

impl Spec {
    /// Checks what the field types cannot.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut ids = HashSet::new();
        for (i, tenant) in self.tenants.iter().enumerate() {
            tenant.check(&format!("tenants[{i}]"))?;
            unique(&mut ids, &tenant.id, &format!("tenants[{i}].id"))?;
        }
        let mut issuers = HashSet::new();
        for (i, issuer) in self.issuers.iter().enumerate() {
            issuer.check(&format!("issuers[{i}]"))?;
            unique(&mut issuers, &issuer.issuer, &format!("issuers[{i}].issuer"))?;
        }
        ManagedIdentity::check_all(&self.managed_identities, &self.tenants)?;
        self.app_service.as_ref().map_or(Ok(()), AppService::check)?;
        let mut hosts = HashSet::new();
        for (i, host) in self.authority_hosts.iter().enumerate() {
            let at = format!("authorityHosts[{i}]");
            host_name(host, &at)?;
            unique(&mut hosts, host, &at)?;
        }
        for (i, registry) in self.registries.iter().enumerate() {
            self.check_registry(&format!("registries[{i}]"), registry)?;
            unique(&mut hosts, &registry.host, &format!("registries[{i}].host"))?;
        }
        for (i, fault) in self.faults.iter().enumerate() {
            fault
                .check()
                .map_err(|problem| format!("faults[{i}]: {problem}"))?;
        }
        Ok(())
    }

    fn check_registry(&self, at: &str, registry: &Registry) -> Result<(), String> {
        registry.check(at)?;
        let Some(tenant) = self.tenants.iter().find(|tenant| tenant.id == registry.tenant) else {
            return Err(format!(
                "{at}.tenant: there is no tenant with the id `{}`",
                registry.tenant
            ));
        };
        for (i, Right { client_id, .. }) in registry.rights.iter().enumerate() {
            let managed = self
                .managed_identities
                .iter()
                .any(|one| one.tenant == tenant.id && one.client_id.eq_ignore_ascii_case(client_id));
            if !managed && tenant.application(client_id).is_none() {
                return Err(format!(
                    "{at}.rights[{i}].clientId: tenant {} has no application or managed identity `{client_id}`",
                    tenant.id
                ));
            }
        }
        Ok(())
    }
}

impl Tenant {
    fn check(&self, at: &str) -> Result<(), String> {
        guid(&self.id, &format!("{at}.id"))?;
        let mut ids = HashSet::new();
        for (i, application) in self.applications.iter().enumerate() {
            let at = format!("{at}.applications[{i}].clientId");
            guid(&application.client_id, &at)?;
            unique(&mut ids, &application.client_id, &at)?;
        }
        Ok(())
    }
}

impl Issuer {
    fn check(&self, at: &str) -> Result<(), String> {
        let sources = [
            self.jwks.is_some(),
            self.jwks_file.is_some(),
            self.jwks_url.is_some(),
        ];
        if sources.into_iter().filter(|given| *given).count() != 1 {
            return Err(format!("{at}: give exactly one of jwks, jwksFile and jwksUrl"));
        }
        if self.jwks.as_ref().is_some_and(KeySet::is_empty) {
            return Err(format!("{at}.jwks: holds no key"));
        }
        Ok(())
    }
}

impl Registry {
    fn check(&self, at: &str) -> Result<(), String> {
        let uri = self.upstream.parse::<hyper::Uri>().ok();
        let usable = uri
            .is_some_and(|uri| uri.scheme_str() == Some("http") && uri.host().is_some() && uri.path() == "/");
        if !usable {
            return Err(format!(
                "{at}.upstream: `{}` is not of the form http://host:port",
                self.upstream
            ));
        }
        for (i, right) in self.rights.iter().enumerate() {
            let at = format!("{at}.rights[{i}]");
            right.check().map_err(|problem| format!("{at}.{problem}"))?;
        }
        Ok(())
    }
}

pub(super) fn unique<'a>(seen: &mut HashSet<&'a str>, value: &'a str, at: &str) -> Result<(), String> {
    if seen.insert(value) {
        Ok(())
    } else {
        Err(format!("{at}: `{value}` is given twice"))
    }
}

/// Several labels, so that no `localhost` becomes Entra's.
fn host_name(text: &str, at: &str) -> Result<(), String> {
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if text.contains('.') && text.split('.').all(label) {
        Ok(())
    } else {
        Err(format!(
            "{at}: `{text}` is not a host name such as login.stack.example"
        ))
    }
}

pub(super) fn guid(text: &str, at: &str) -> Result<(), String> {
    let groups: Vec<&str> = text.split('-').collect();
    let hex = |group: &&str| group.bytes().all(|b| b.is_ascii_hexdigit());
    let shaped = groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.iter().all(hex);
    if shaped {
        Ok(())
    } else {
        Err(format!(
            "{at}: `{text}` is not a GUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)"
        ))
    }
}
