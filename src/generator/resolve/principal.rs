//! A service principal: where its client id and client secret are kept.

use super::{Referenced, Resolver, application::check_tenant_id};
use crate::{
    generator::access_token::{SecretKeySelector, ServicePrincipalAuth},
    identity::{CloudEndpoints, SecretKey, ServicePrincipal},
    problem::{Problem, Reason, shortened},
};

impl Resolver {
    pub(super) fn principal(
        &self,
        generator: Referenced<'_>,
        auth: &ServicePrincipalAuth,
        cloud: CloudEndpoints,
    ) -> Result<ServicePrincipal, Problem> {
        let key = |selector: &Option<SecretKeySelector>, field| {
            generator.secret_key(selector.as_ref().unwrap_or(&SecretKeySelector::default()), field)
        };
        let (client_id, client_secret) = (
            key(&auth.secret_ref.client_id, "clientId")?,
            key(&auth.secret_ref.client_secret, "clientSecret")?,
        );
        let (tenant_id, tenant_from) = self.tenant(generator).ok_or_else(|| {
            Problem::new(
                Reason::TenantIdMissing,
                format!(
                    "nothing names the Entra tenant of {}'s service principal; set spec.tenantId in it, or --tenant-id on \
                     the webhook",
                    generator.reference
                ),
            )
        })?;
        check_tenant_id(tenant_id, &generator.tenant_place(&tenant_from))?;
        Ok(ServicePrincipal {
            client_id,
            client_secret,
            tenant_id: tenant_id.to_owned(),
            tenant_from,
            cloud,
        })
    }
}

impl Referenced<'_> {
    fn secret_key(self, selector: &SecretKeySelector, field: &str) -> Result<SecretKey, Problem> {
        let path = format!("spec.auth.servicePrincipal.secretRef.{field}");
        let given = |value: &Option<String>, part: &str| {
            let value = value.clone().filter(|value| !value.is_empty());
            value.ok_or_else(|| self.invalid(&format!("has no {path}.{part}; set it")))
        };
        let namespace = self.foreign_namespace(
            selector.namespace.as_deref(),
            "Secret",
            &format!("{path}.namespace"),
        )?;
        let (name, key) = (given(&selector.name, "name")?, given(&selector.key, "key")?);
        self.check_name(&name, &format!("{path}.name"))?;
        if !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return Err(self.invalid(&format!(
                "says {:?} in {path}.key, which is not a key of a Secret; correct it",
                shortened(&key)
            )));
        }
        Ok(SecretKey {
            namespace: namespace.to_owned(),
            name,
            key,
        })
    }
}
