//! From a generator and a service account to one plain value. All validation of what
//! users wrote is here, and nothing here asks anybody anything.

use super::{
    ServiceAccountView,
    access_token::{ACRAccessToken, EnvironmentType, WorkloadIdentityAuth},
};
use crate::{
    identity::{Cloud, WorkloadIdentity},
    problem::{Problem, Reason, shortened},
    registry::{RegistryHost, RegistrySuffixes, Scope, is_dns_name},
};
use kube::ResourceExt;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The annotations that name a service account's application: the kubelet credential
/// provider's first, azure-workload-identity's second.
const CLIENT_ID: [&str; 2] = [
    "kubernetes.azure.com/acr-client-id",
    "azure.workload.identity/client-id",
];
const TENANT_ID: [&str; 2] = [
    "kubernetes.azure.com/acr-tenant-id",
    "azure.workload.identity/tenant-id",
];

/// All annotations of a service account that are read.
pub const ANNOTATIONS: &[&str] = &[CLIENT_ID[0], CLIENT_ID[1], TENANT_ID[0], TENANT_ID[1]];

/// Everything that a pull token depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Who asks.
    pub identity: WorkloadIdentity,
    /// Where.
    pub registry: RegistryHost,
    /// For what; without it, for all the identity may pull.
    pub scope: Option<Scope>,
}

/// Whose service account a generator uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account<'a> {
    /// The one of the Pod: the pull secret is one for each service account.
    Pods(&'a str),
    /// The one that the generator names: the pull secret is one for the generator.
    Generators(&'a str),
}

/// The cluster-wide settings that resolving needs.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Where tokens may be sent.
    pub suffixes: RegistrySuffixes,
    /// The tenant where nothing nearer names one.
    pub tenant_id: Option<String>,
    /// The audience of assertions.
    pub token_audience: String,
}

// === impl Resolver ===

impl Resolver {
    /// Which service account the generator uses for a Pod that runs as `pods`.
    pub fn account<'a>(&self, generator: &'a ACRAccessToken, pods: &'a str) -> Result<Account<'a>, Problem> {
        let auth = &generator.spec.auth;
        let unsupported = |method: &str| {
            invalid(
                generator,
                format!(
                    "uses spec.auth.{method}, and this version supports spec.auth.workloadIdentity alone"
                ),
            )
        };
        // External Secrets Operator's order of precedence.
        if auth.service_principal.is_some() {
            return Err(unsupported("servicePrincipal"));
        }
        if auth.managed_identity.is_some() {
            return Err(unsupported("managedIdentity"));
        }
        let Some(WorkloadIdentityAuth { service_account_ref }) = &auth.workload_identity else {
            return Err(invalid(
                generator,
                "names no identity; set spec.auth.workloadIdentity: {} to use the Pod's service account"
                    .to_owned(),
            ));
        };
        let Some(reference) = service_account_ref else {
            return Ok(Account::Pods(pods));
        };
        let namespace = generator.namespace().unwrap_or_default();
        if reference.namespace.as_ref().is_some_and(|n| *n != namespace) {
            return Err(Problem::new(
                Reason::CrossNamespaceNotAllowed,
                format!(
                    "ACRAccessToken {} points at a service account of another namespace; remove serviceAccountRef.namespace",
                    generator.name_any()
                ),
            ));
        }
        if let Some(other) = reference.audiences.iter().find(|a| **a != self.token_audience) {
            return Err(invalid(
                generator,
                format!(
                    "asks for the audience {other:?} in serviceAccountRef.audiences; only {:?} is permitted: remove the other",
                    self.token_audience
                ),
            ));
        }
        Ok(Account::Generators(&reference.name))
    }

    /// Everything the token depends on.
    pub fn resolve(
        &self,
        generator: &ACRAccessToken,
        account: Account<'_>,
        annotations: &ServiceAccountView,
    ) -> Result<Resolved, Problem> {
        let namespace = generator.namespace().unwrap_or_default();
        let spec = &generator.spec;
        let service_account = account.name();
        let annotated = |keys: [&str; 2]| {
            keys.iter()
                .filter_map(|key| annotations.get(*key).map(|v| v.trim()))
                .find(|value| !value.is_empty())
        };
        let registry = self
            .suffixes
            .permit(&spec.registry)
            .map_err(|p| in_generator(generator, p))?;
        let scope = spec
            .scope
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(Scope::parse)
            .transpose()
            .map_err(|p| in_generator(generator, p))?;
        let client_id = annotated(CLIENT_ID).ok_or_else(|| {
            Problem::new(
                Reason::ClientIdMissing,
                format!(
                    "service account {namespace}/{service_account} names no Entra application; annotate it: \
                     kubectl annotate serviceaccount --namespace {namespace} {service_account} {}=CLIENT_ID",
                    CLIENT_ID[1]
                ),
            )
        })?;
        let tenant_id = annotated(TENANT_ID)
            .or(spec.tenant_id.as_deref().filter(|t| !t.is_empty()))
            .or(self.tenant_id.as_deref())
            .ok_or_else(|| {
                Problem::new(
                    Reason::TenantIdMissing,
                    format!(
                        "nothing names the Entra tenant of service account {namespace}/{service_account}; annotate it with \
                         {}, or set spec.tenantId in ACRAccessToken {}, or --tenant-id on the webhook",
                        TENANT_ID[1],
                        generator.name_any()
                    ),
                )
            })?;
        check_ids(&namespace, service_account, client_id, tenant_id)?;
        Ok(Resolved {
            identity: WorkloadIdentity {
                service_account: service_account.to_owned(),
                client_id: client_id.to_owned(),
                tenant_id: tenant_id.to_owned(),
                cloud: cloud(generator)?,
                namespace,
            },
            registry,
            scope,
        })
    }
}

// === impl Account ===

impl Account<'_> {
    /// The service account's name.
    pub fn name(&self) -> &str {
        match self {
            Account::Pods(name) | Account::Generators(name) => name,
        }
    }
}

// === impl Resolved ===

impl Resolved {
    /// A fingerprint of everything the token depends on: when it changes, the token is remade.
    pub fn fingerprint(&self) -> String {
        let WorkloadIdentity {
            namespace,
            service_account,
            client_id,
            tenant_id,
            cloud,
        } = &self.identity;
        let scope = self.scope.as_ref().map(Scope::to_string).unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [
            namespace,
            service_account,
            client_id,
            tenant_id,
            cloud.authority_host(),
            self.registry.as_str(),
            &scope,
        ] {
            hash.update(part.as_bytes());
            hash.update([0]);
        }
        hash.finalize()[..16]
            .iter()
            .fold(String::with_capacity(32), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
}

/// A client id is a GUID, a tenant id that or a domain name. Anything else would only be
/// carried through Kubernetes and Entra to a worse message.
fn check_ids(
    namespace: &str,
    service_account: &str,
    client_id: &str,
    tenant_id: &str,
) -> Result<(), Problem> {
    let what = if !is_guid(client_id) {
        format!("client id {:?} is not a GUID", shortened(client_id))
    } else if !(is_guid(tenant_id) || is_dns_name(tenant_id) && tenant_id.contains('.')) {
        format!(
            "tenant id {:?} is neither a GUID nor a domain name",
            shortened(tenant_id)
        )
    } else {
        return Ok(());
    };
    Err(Problem::new(
        Reason::IdentityInvalid,
        format!(
            "service account {namespace}/{service_account}: {what}; correct its annotation, or spec.tenantId of the generator"
        ),
    ))
}

fn is_guid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

fn cloud(generator: &ACRAccessToken) -> Result<Cloud, Problem> {
    match generator.spec.environment_type {
        EnvironmentType::PublicCloud => Ok(Cloud::Public),
        EnvironmentType::USGovernmentCloud => Ok(Cloud::UsGovernment),
        EnvironmentType::ChinaCloud => Ok(Cloud::China),
        EnvironmentType::GermanCloud => Ok(Cloud::Germany),
        EnvironmentType::AzureStackCloud => Err(invalid(
            generator,
            "is for AzureStackCloud, which this version does not support".to_owned(),
        )),
    }
}

fn invalid(generator: &ACRAccessToken, what: String) -> Problem {
    Problem::new(
        Reason::GeneratorInvalid,
        format!("ACRAccessToken {} {what}", generator.name_any()),
    )
}

fn in_generator(generator: &ACRAccessToken, problem: Problem) -> Problem {
    Problem::new(
        problem.reason,
        format!("ACRAccessToken {}: {}", generator.name_any(), problem.message),
    )
}

#[cfg(test)]
mod tests;
