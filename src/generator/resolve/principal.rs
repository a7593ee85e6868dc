//! A service principal: where its client id and client secret are kept.

use super::{Referenced, Resolver, application::check_tenant_id};
use crate::{
    generator::access_token::{MAX_NAME, SecretKeySelector, ServicePrincipalAuth},
    identity::{CloudEndpoints, SecretKey, ServicePrincipal},
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};

/// A selector that selects nothing.
static NONE: SecretKeySelector = SecretKeySelector {
    name: None,
    key: None,
    namespace: None,
};

impl Resolver {
    pub(super) fn principal(
        &self,
        generator: Referenced<'_>,
        auth: &ServicePrincipalAuth,
        cloud: CloudEndpoints,
    ) -> Result<ServicePrincipal, Problem> {
        let key = |selector: &Option<SecretKeySelector>, field| {
            generator.secret_key(selector.as_ref().unwrap_or(&NONE), field)
        };
        let (client_id, client_secret) = (
            key(&auth.secret_ref.client_id, "clientId")?,
            key(&auth.secret_ref.client_secret, "clientSecret")?,
        );
        let (tenant_id, tenant_id_source) = self.tenant(generator).ok_or_else(|| {
            Problem::new(
                Reason::TenantIdMissing,
                format!(
                    "nothing names the Entra tenant of {}'s service principal; set spec.tenantId in it, or --tenant-id on \
                     the webhook",
                    generator.reference
                ),
            )
        })?;
        check_tenant_id(tenant_id, &generator.tenant_place(&tenant_id_source))?;
        Ok(ServicePrincipal {
            client_id,
            client_secret,
            tenant_id: tenant_id.to_owned(),
            tenant_id_source,
            cloud,
        })
    }
}

impl<'a> Referenced<'a> {
    fn secret_key(self, selector: &'a SecretKeySelector, field: &str) -> Result<SecretKey, Problem> {
        let path = format!("spec.auth.servicePrincipal.secretRef.{field}");
        let given = |value: &'a Option<String>, part: &str| {
            let value = value.as_deref().filter(|value| !value.is_empty());
            value.ok_or_else(|| self.invalid(&format!("has no {path}.{part}; set it")))
        };
        let namespace = self.foreign_namespace(
            selector.namespace.as_deref(),
            "Secret",
            &format!("{path}.namespace"),
        )?;
        let (name, key) = (given(&selector.name, "name")?, given(&selector.key, "key")?);
        self.check_name(name, &format!("{path}.name"))?;
        let is_key = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if key.len() > MAX_NAME || !key.bytes().all(is_key) {
            return Err(self.invalid(&format!(
                "says {} in {path}.key, which is not a key of a Secret; correct it",
                UntrustedText::quoted(key)
            )));
        }
        Ok(SecretKey {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        })
    }
}
