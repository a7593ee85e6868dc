//! A service principal: the Secret keys that hold its client id and its client secret.

use super::{GeneratorInNamespace, MAX_SHOWN_BYTES, ResolveRules, application::check_tenant_id};
use crate::{
    generator::access_token::{SecretKeySelector, ServicePrincipalAuth},
    identity::{CloudEndpoints, ForMessages, SecretKey, ServicePrincipal},
    names::MAX_NAME_LENGTH,
    problem::{Problem, Reason},
    reference::SpecField,
    untrusted::UntrustedText,
};

/// Stands for an absent selector, so that the message names its first missing field.
static EMPTY_SELECTOR: SecretKeySelector = SecretKeySelector {
    name: None,
    key: None,
    namespace: None,
};

impl ResolveRules {
    pub(super) fn service_principal(
        &self,
        generator: GeneratorInNamespace<'_>,
        auth: &ServicePrincipalAuth,
        cloud: CloudEndpoints,
    ) -> Result<ServicePrincipal, Problem> {
        let key = |selector: &Option<SecretKeySelector>, field| {
            generator.secret_key(selector.as_ref().unwrap_or(&EMPTY_SELECTOR), field)
        };
        let client_id = key(&auth.secret_ref.client_id, "clientId")?;
        let client_secret = key(&auth.secret_ref.client_secret, "clientSecret")?;
        let (tenant_id, tenant_id_source) = self.tenant_id(generator).ok_or_else(|| {
            Problem::new(
                Reason::TenantIdMissing,
                format!(
                    "no tenant id is configured for the service principal of {}: set its spec.tenantId, or --tenant-id of the \
                     webhook",
                    generator.reference
                ),
            )
            .command(generator.patch_command(SpecField::TenantId))
        })?;
        check_tenant_id(tenant_id, &generator.tenant_id_location(&tenant_id_source))?;
        Ok(ServicePrincipal {
            client_id,
            client_secret,
            tenant_id: tenant_id.to_owned(),
            tenant_id_source: ForMessages(tenant_id_source),
            cloud,
        })
    }
}

impl<'a> GeneratorInNamespace<'a> {
    fn secret_key(self, selector: &'a SecretKeySelector, field: &str) -> Result<SecretKey, Problem> {
        let path = format!("spec.auth.servicePrincipal.secretRef.{field}");
        let required = |value: &'a Option<String>, part: &str| {
            let value = value.as_deref().filter(|value| !value.is_empty());
            value.ok_or_else(|| self.invalid(&format!("has no {path}.{part}")))
        };
        let namespace = self.referenced_namespace(
            selector.namespace.as_deref(),
            "Secret",
            &format!("{path}.namespace"),
        )?;
        let name = required(&selector.name, "name")?;
        let key = required(&selector.key, "key")?;
        let name = self.object_name(name, &format!("{path}.name"))?;
        let is_key_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if key.len() > MAX_NAME_LENGTH || !key.bytes().all(is_key_byte) {
            return Err(self.invalid(&format!(
                "has an invalid {path}.key: {} is not a valid key of a Secret",
                UntrustedText::quoted(key).at_most(MAX_SHOWN_BYTES)
            )));
        }
        Ok(SecretKey {
            namespace,
            name,
            key: key.to_owned(),
        })
    }
}
