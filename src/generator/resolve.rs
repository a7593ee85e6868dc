//! From a generator and a service account to one plain value. All validation of what
//! users wrote is here, and nothing here asks anybody anything.

mod application;
mod managed;
mod principal;
mod workload;

pub use workload::ANNOTATIONS;

use super::{
    NamespaceList, Reference, ServiceAccountView,
    access_token::{
        ACRAccessTokenSpec, Auth, EnvironmentType, ManagedIdentityAuth, ServicePrincipalAuth,
        WorkloadIdentityAuth,
    },
    reference::Kind,
};
use crate::{
    excluded::ExcludedNamespaces,
    identity::{Cloud, CloudEndpoints, Clouds, Identity, TenantIdSource},
    kubernetes::is_subdomain,
    problem::{Problem, Reason},
    registry::{RegistryHost, RegistrySuffixes, Scope},
    untrusted::UntrustedText,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Everything that a pull token depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolved {
    /// Who asks.
    pub identity: Identity,
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
    /// None: a service principal or a managed identity asks. The pull secret is one for the generator.
    None,
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
    /// The namespaces whose Pods may use the webhook's managed identity.
    pub managed_identity_namespaces: NamespaceList,
    /// The namespaces whose service accounts may not be used.
    pub excluded: ExcludedNamespaces,
}

// === impl Resolver ===

impl Resolver {
    /// Which service account the generator uses for a Pod that runs as `pods`.
    pub fn account<'a>(&self, generator: Referenced<'a>, pods: &'a str) -> Result<Account<'a>, Problem> {
        let WorkloadIdentityAuth { service_account_ref } = match generator.chosen()? {
            Chosen::Workload(workload) => workload,
            Chosen::Principal(_) | Chosen::Managed(_) => return Ok(Account::None),
        };
        let Some(reference) = service_account_ref else {
            return Ok(Account::Pods(pods));
        };
        generator.check_name(&reference.name, "serviceAccountRef.name")?;
        let namespace = generator.foreign_namespace(
            reference.namespace.as_deref(),
            "service account",
            "serviceAccountRef.namespace",
        )?;
        self.excluded.check_service_account(namespace, &reference.name)?;
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
        let (registry, cloud) = (self.registry(generator)?, self.cloud(generator)?);
        let scope = generator
            .spec
            .scope
            .as_deref()
            .filter(|text| !text.is_empty())
            .map(Scope::parse)
            .transpose()
            .map_err(|problem| generator.in_it(problem))?;
        let identity = match generator.chosen()? {
            Chosen::Principal(auth) => Identity::ServicePrincipal(self.principal(generator, auth, cloud)?),
            Chosen::Managed(auth) => Identity::Managed(self.managed(generator, auth, cloud)?),
            Chosen::Workload(auth) => {
                Identity::Workload(self.workload(generator, auth, account, annotations, cloud)?)
            }
        };
        Ok(Resolved {
            identity,
            registry,
            scope,
        })
    }

    /// The generator's registry, where its tokens may be sent there.
    pub fn registry(&self, generator: Referenced<'_>) -> Result<RegistryHost, Problem> {
        let registry = self
            .suffixes
            .permit(&generator.spec.registry)
            .map_err(|problem| generator.in_it(problem))?;
        let cloud = Cloud::from(generator.spec.environment_type);
        // One cloud's token is of no use in another, and has no business there.
        match Cloud::of_registry(registry.as_str()) {
            Some(owner) if owner != cloud && cloud != Cloud::AzureStack => Err(Problem::new(
                Reason::RegistryNotAllowed,
                format!(
                    "{}: {registry} is a registry of {owner}, and spec.environmentType says {cloud}; correct one of them",
                    generator.reference
                ),
            )),
            _ => Ok(registry),
        }
    }

    fn cloud(&self, generator: Referenced<'_>) -> Result<CloudEndpoints, Problem> {
        self.clouds
            .endpoints(generator.spec.environment_type.into())
            .ok_or_else(|| {
                generator.invalid(
                    "is for AzureStackCloud, whose Entra the webhook was not told of by --authority-host",
                )
            })
    }
}

// === impl Referenced ===

/// The one identity of those that a generator may name.
enum Chosen<'a> {
    Principal(&'a ServicePrincipalAuth),
    Managed(&'a ManagedIdentityAuth),
    Workload(&'a WorkloadIdentityAuth),
}

impl<'a> Referenced<'a> {
    /// In External Secrets Operator's order of precedence.
    fn chosen(self) -> Result<Chosen<'a>, Problem> {
        match &self.spec.auth {
            Auth {
                service_principal: Some(auth),
                ..
            } => Ok(Chosen::Principal(auth)),
            Auth {
                managed_identity: Some(auth),
                ..
            } => Ok(Chosen::Managed(auth)),
            Auth {
                workload_identity: Some(auth),
                ..
            } => Ok(Chosen::Workload(auth)),
            Auth { .. } => Err(self.invalid(
                "names no identity; set spec.auth.workloadIdentity: {} to use the Pod's service account",
            )),
        }
    }

    /// A warning where the generator names several identities, of which one is used.
    pub fn several_identities(self) -> Option<String> {
        let auth = &self.spec.auth;
        let named: Vec<_> = [
            ("servicePrincipal", auth.service_principal.is_some()),
            ("managedIdentity", auth.managed_identity.is_some()),
            ("workloadIdentity", auth.workload_identity.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, is_named)| is_named.then_some(name))
        .collect();
        let [used, _, ..] = named.as_slice() else {
            return None;
        };
        Some(format!(
            "{} names several identities in spec.auth ({}): {used} is used",
            self.reference,
            named.join(", ")
        ))
    }

    /// The namespace that a generator names for something of it, which is the Pod's own but for a ClusterGenerator.
    fn foreign_namespace(self, named: Option<&'a str>, what: &str, field: &str) -> Result<&'a str, Problem> {
        let own = self.namespace;
        let namespace = named.filter(|name| !name.is_empty()).unwrap_or(own);
        self.check_name(namespace, field)?;
        if namespace == own || self.reference.kind == Kind::ClusterGenerator {
            return Ok(namespace);
        }
        Err(Problem::new(
            Reason::CrossNamespaceNotAllowed,
            format!(
                "{} points at a {what} of namespace {namespace}, which only a ClusterGenerator may; remove {field}",
                self.reference
            ),
        ))
    }

    /// The command that changes this field of the generator.
    fn patch_command(self, field: &str) -> String {
        let (name, namespace) = (self.reference.name, self.namespace);
        match self.reference.kind {
            Kind::AccessToken => format!(
                "kubectl patch acraccesstoken {name} --namespace {namespace} --type merge --patch '{{\"spec\":{{{field}}}}}'"
            ),
            Kind::ClusterGenerator => format!(
                "kubectl patch clustergenerator {name} --type merge --patch \
                 '{{\"spec\":{{\"generator\":{{\"acrAccessTokenSpec\":{{{field}}}}}}}}}'"
            ),
        }
    }

    /// Names go into the paths of calls to the API server and into commands that we tell; the schemas of older
    /// copies of the CRDs let anything pass.
    fn check_name(self, name: &str, field: &str) -> Result<(), Problem> {
        match is_subdomain(name) {
            true => Ok(()),
            false => Err(self.invalid(&format!(
                "says {} in {field}, which is not the name of an object; correct it",
                UntrustedText::quoted(name)
            ))),
        }
    }

    /// Where a tenant id stands that is no service account's.
    fn tenant_place(self, from: &TenantIdSource) -> String {
        match from {
            TenantIdSource::Flag => "--tenant-id of the webhook".to_owned(),
            _ => format!("spec.tenantId of {}", self.reference),
        }
    }

    fn invalid(self, what: &str) -> Problem {
        Problem::new(Reason::GeneratorInvalid, format!("{} {what}", self.reference))
    }

    fn in_it(self, problem: Problem) -> Problem {
        problem.at(self.reference)
    }
}

// === impl Account ===

impl<'a> Account<'a> {
    /// Namespace and name of the service account, for a Pod of this namespace.
    pub fn service_account(self, pods: &'a str) -> Option<(&'a str, &'a str)> {
        match self {
            Account::Pods(name) => Some((pods, name)),
            Account::Generators { namespace, name } => Some((namespace, name)),
            Account::None => None,
        }
    }
}

// === impl Resolved ===

impl Resolved {
    /// A fingerprint of everything the token depends on: when it changes, the token is remade.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        // Neither the hash nor these types can fail; were they to, an empty text would be no worse than stale.
        if serde_json::to_writer(&mut hash, self).is_err() {
            return String::new();
        }
        hash.finalize()[..16]
            .iter()
            .fold(String::with_capacity(32), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }
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
