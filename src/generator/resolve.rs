//! From a generator and a service account to one plain value. All validation of what
//! users wrote is here, and nothing here asks anybody anything.

use super::{
    Reference, ServiceAccountView,
    access_token::{ACRAccessTokenSpec, EnvironmentType, WorkloadIdentityAuth},
    reference::Kind,
};
use crate::{
    identity::{Cloud, Clouds, WorkloadIdentity},
    problem::{Problem, Reason, shortened},
    registry::{RegistryHost, RegistrySuffixes, Scope, is_dns_name},
};
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

/// The annotation by which a service account lets ClusterGenerators use it from other namespaces:
/// their names separated by commas, or `*`.
const ALLOWED_NAMESPACES: &str = "acr-pull.dev/allowed-namespaces";

/// All annotations of a service account that are read.
pub const ANNOTATIONS: &[&str] = &[
    CLIENT_ID[0],
    CLIENT_ID[1],
    TENANT_ID[0],
    TENANT_ID[1],
    ALLOWED_NAMESPACES,
];

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

/// A generator as one Pod's namespace sees it.
#[derive(Clone, Copy, Debug)]
pub struct Referenced<'a> {
    /// How it was named.
    pub reference: Reference<'a>,
    /// The namespace of the Pod.
    pub namespace: &'a str,
    /// What it says.
    pub spec: &'a ACRAccessTokenSpec,
}

/// Whose service account a generator uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account<'a> {
    /// The one of the Pod: the pull secret is one for each service account.
    Pods(&'a str),
    /// The one that the generator names: the pull secret is one for the generator.
    Generators {
        /// Its namespace, the Pod's own but for ClusterGenerators.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
}

/// The cluster-wide settings that resolving needs.
#[derive(Clone, Debug)]
pub struct Resolver {
    /// Where tokens may be sent.
    pub suffixes: RegistrySuffixes,
    /// The tenant where nothing nearer names one.
    pub tenant_id: Option<String>,
    /// The audiences of assertions: the first always, the others where a generator asks.
    pub token_audiences: Vec<String>,
    /// What each cloud is called.
    pub clouds: Clouds,
}

// === impl Resolver ===

impl Resolver {
    /// Which service account the generator uses for a Pod that runs as `pods`.
    pub fn account<'a>(&self, generator: Referenced<'a>, pods: &'a str) -> Result<Account<'a>, Problem> {
        let auth = &generator.spec.auth;
        let unsupported = |method: &str| {
            generator.invalid(&format!(
                "uses spec.auth.{method}, and this version supports spec.auth.workloadIdentity alone"
            ))
        };
        // External Secrets Operator's order of precedence.
        if auth.service_principal.is_some() {
            return Err(unsupported("servicePrincipal"));
        }
        if auth.managed_identity.is_some() {
            return Err(unsupported("managedIdentity"));
        }
        let Some(WorkloadIdentityAuth { service_account_ref }) = &auth.workload_identity else {
            return Err(generator.invalid(
                "names no identity; set spec.auth.workloadIdentity: {} to use the Pod's service account",
            ));
        };
        let Some(reference) = service_account_ref else {
            return Ok(Account::Pods(pods));
        };
        let own = generator.namespace;
        let namespace = reference
            .namespace
            .as_deref()
            .filter(|n| !n.is_empty())
            .unwrap_or(own);
        if namespace != own && generator.reference.kind != Kind::ClusterGenerator {
            return Err(Problem::new(
                Reason::CrossNamespaceNotAllowed,
                format!(
                    "{} points at a service account of namespace {namespace}, which only a ClusterGenerator may; \
                     remove serviceAccountRef.namespace",
                    generator.reference
                ),
            ));
        }
        Ok(Account::Generators {
            namespace,
            name: &reference.name,
        })
    }

    /// Everything the token depends on.
    pub fn resolve(
        &self,
        generator: Referenced<'_>,
        account: Account<'_>,
        annotations: &ServiceAccountView,
    ) -> Result<Resolved, Problem> {
        let spec = generator.spec;
        let in_generator =
            |p: Problem| Problem::new(p.reason, format!("{}: {}", generator.reference, p.message));
        let registry = self.suffixes.permit(&spec.registry).map_err(in_generator)?;
        let scope = spec
            .scope
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(Scope::parse)
            .transpose()
            .map_err(in_generator)?;
        Ok(Resolved {
            identity: self.workload_identity(generator, account, annotations)?,
            registry,
            scope,
        })
    }

    fn workload_identity(
        &self,
        generator: Referenced<'_>,
        account: Account<'_>,
        annotations: &ServiceAccountView,
    ) -> Result<WorkloadIdentity, Problem> {
        let (namespace, service_account) = (account.namespace(generator.namespace), account.name());
        check_allowed(generator, namespace, service_account, annotations)?;
        let annotated = |keys: [&str; 2]| {
            keys.iter()
                .filter_map(|key| annotations.get(*key).map(|v| v.trim()))
                .find(|value| !value.is_empty())
        };
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
            .or(generator.spec.tenant_id.as_deref().filter(|t| !t.is_empty()))
            .or(self.tenant_id.as_deref())
            .ok_or_else(|| {
                Problem::new(
                    Reason::TenantIdMissing,
                    format!(
                        "nothing names the Entra tenant of service account {namespace}/{service_account}; annotate it with \
                         {}, or set spec.tenantId in {}, or --tenant-id on the webhook",
                        TENANT_ID[1], generator.reference
                    ),
                )
            })?;
        check_ids(namespace, service_account, client_id, tenant_id)?;
        let cloud = self
            .clouds
            .endpoints(generator.spec.environment_type.into())
            .ok_or_else(|| {
                generator.invalid(
                    "is for AzureStackCloud, whose Entra the webhook was not told of by --authority-host",
                )
            })?;
        Ok(WorkloadIdentity {
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            client_id: client_id.to_owned(),
            tenant_id: tenant_id.to_owned(),
            audiences: self.audiences(generator)?,
            cloud,
        })
    }

    /// The default audience, and those the generator adds, as External Secrets Operator does.
    fn audiences(&self, generator: Referenced<'_>) -> Result<Vec<String>, Problem> {
        let mut audiences: Vec<String> = self.token_audiences.first().cloned().into_iter().collect();
        let reference = generator.spec.auth.workload_identity.as_ref();
        let asked = reference.and_then(|w| w.service_account_ref.as_ref());
        for audience in asked.map(|r| r.audiences.as_slice()).unwrap_or_default() {
            if !self.token_audiences.contains(audience) {
                return Err(generator.invalid(&format!(
                    "asks for the audience {audience:?} in serviceAccountRef.audiences, and only those of \
                     --token-audiences are permitted ({}): remove it",
                    self.token_audiences.join(", ")
                )));
            }
            if !audiences.contains(audience) {
                audiences.push(audience.clone());
            }
        }
        Ok(audiences)
    }
}

/// A service account of another namespace must have agreed to be used from the Pod's.
fn check_allowed(
    generator: Referenced<'_>,
    namespace: &str,
    service_account: &str,
    annotations: &ServiceAccountView,
) -> Result<(), Problem> {
    let pods = generator.namespace;
    let allowed = annotations
        .get(ALLOWED_NAMESPACES)
        .map(String::as_str)
        .unwrap_or_default();
    let mut entries = allowed.split(',').map(str::trim);
    if namespace == pods || entries.any(|entry| entry == "*" || entry == pods) {
        return Ok(());
    }
    Err(Problem::new(
        Reason::CrossNamespaceNotAllowed,
        format!(
            "{} uses service account {namespace}/{service_account}, which does not allow Pods of namespace {pods}; \
             whoever owns it can: kubectl annotate serviceaccount --overwrite --namespace {namespace} {service_account} \
             {ALLOWED_NAMESPACES}={pods}",
            generator.reference
        ),
    ))
}

// === impl Referenced ===

impl Referenced<'_> {
    fn invalid(self, what: &str) -> Problem {
        Problem::new(Reason::GeneratorInvalid, format!("{} {what}", self.reference))
    }
}

// === impl Account ===

impl<'a> Account<'a> {
    /// The service account's name.
    pub fn name(self) -> &'a str {
        match self {
            Account::Pods(name) | Account::Generators { name, .. } => name,
        }
    }

    /// The service account's namespace, for a Pod of that one.
    pub fn namespace(self, pods: &'a str) -> &'a str {
        match self {
            Account::Pods(_) => pods,
            Account::Generators { namespace, .. } => namespace,
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
            audiences,
            cloud,
        } = &self.identity;
        let audiences = audiences.join(" ");
        let scope = self.scope.as_ref().map(Scope::to_string).unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [
            namespace,
            service_account,
            client_id,
            tenant_id,
            &audiences,
            &cloud.authority_host,
            &cloud.acr_audience,
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

impl From<EnvironmentType> for Cloud {
    fn from(environment: EnvironmentType) -> Self {
        match environment {
            EnvironmentType::PublicCloud => Cloud::Public,
            EnvironmentType::USGovernmentCloud => Cloud::UsGovernment,
            EnvironmentType::ChinaCloud => Cloud::China,
            EnvironmentType::GermanCloud => Cloud::Germany,
            EnvironmentType::AzureStackCloud => Cloud::AzureStack,
        }
    }
}

#[cfg(test)]
mod tests;
