//! Resolves a generator and a service account to the inputs of a token. All validation of the text of users is here.
//! Nothing here calls the API server or Azure.

mod application;
mod managed_identity;
mod service_principal;
mod workload_identity;

pub use workload_identity::SERVICE_ACCOUNT_ANNOTATIONS;

use super::{
    NamespaceList, ServiceAccountAnnotations,
    access_token::{
        ACRAccessTokenSpec, Auth, EnvironmentType, ManagedIdentityAuth, ServicePrincipalAuth,
        WorkloadIdentityAuth,
    },
};
use crate::{
    excluded::ExcludedNamespaces,
    identity::{Cloud, CloudEndpoints, Clouds, Identity, TenantIdSource},
    names::{NamespaceName, NamespacedName, ObjectName},
    problem::{Problem, Reason},
    reference::{Kind, Reference, SpecField},
    registry::{RegistryHost, RegistrySuffixes, Scope},
    untrusted::UntrustedText,
};
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The maximum length of an invalid value in a message.
const MAX_SHOWN_BYTES: usize = 64;

/// Everything that a pull token depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenInputs {
    /// The identity that requests the token.
    pub identity: Identity,
    /// The registry that issues the token.
    pub registry: RegistryHost,
    /// The scope of the token. Without a scope, the token covers everything that the identity may pull.
    pub scope: Option<Scope>,
}

impl TokenInputs {
    /// A hash of all inputs. A pull secret whose stored hash differs needs a new token.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        // Neither the hash nor the serialization of these types can fail.
        if serde_json::to_writer(&mut hash, self).is_err() {
            return String::new();
        }
        HEXLOWER.encode(&hash.finalize()[..16])
    }
}

/// The service account that a generator uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAccount {
    /// The service account of the Pod, by name: each service account has its own pull secret.
    OfPod(ObjectName),
    /// The service account that the generator names: the generator has one pull secret. Only a ClusterGenerator can
    /// name a namespace other than the Pod's.
    Named(NamespacedName),
    /// None, for a service principal or a managed identity: the generator has one pull secret.
    NotNeeded,
}

impl ServiceAccount {
    /// The namespace and the name of the service account, for a Pod in `pod_namespace`.
    pub fn namespaced_name(&self, pod_namespace: &NamespaceName) -> Option<NamespacedName> {
        match self {
            ServiceAccount::OfPod(name) => Some(NamespacedName {
                namespace: pod_namespace.clone(),
                name: name.clone(),
            }),
            ServiceAccount::Named(account) => Some(account.clone()),
            ServiceAccount::NotNeeded => None,
        }
    }
}

/// A generator that a Pod in `namespace` references.
#[derive(Clone, Copy, Debug)]
pub struct GeneratorInNamespace<'a> {
    /// The kind and the name of the generator.
    pub reference: &'a Reference,
    /// The namespace of the Pod.
    pub namespace: &'a NamespaceName,
    /// The spec of the `ACRAccessToken`.
    pub spec: &'a ACRAccessTokenSpec,
}

/// The one identity of `spec.auth` that is used.
enum SelectedAuth<'a> {
    ServicePrincipal(&'a ServicePrincipalAuth),
    ManagedIdentity(&'a ManagedIdentityAuth),
    WorkloadIdentity(&'a WorkloadIdentityAuth),
}

impl<'a> GeneratorInNamespace<'a> {
    /// Selects the identity by External Secrets Operator's order of precedence.
    fn selected_auth(self) -> Result<SelectedAuth<'a>, Problem> {
        match &self.spec.auth {
            Auth {
                service_principal: Some(auth),
                ..
            } => Ok(SelectedAuth::ServicePrincipal(auth)),
            Auth {
                managed_identity: Some(auth),
                ..
            } => Ok(SelectedAuth::ManagedIdentity(auth)),
            Auth {
                workload_identity: Some(auth),
                ..
            } => Ok(SelectedAuth::WorkloadIdentity(auth)),
            Auth { .. } => Err(self.invalid(
                "has no identity in spec.auth: set workloadIdentity: {} to use the Pod's service account",
            )),
        }
    }

    /// A warning for a generator that sets several identities, because only one of them is used.
    pub fn multiple_identities_warning(self) -> Option<Problem> {
        let auth = &self.spec.auth;
        let set: Vec<_> = [
            ("servicePrincipal", auth.service_principal.is_some()),
            ("managedIdentity", auth.managed_identity.is_some()),
            ("workloadIdentity", auth.workload_identity.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is_set)| is_set.then_some(field))
        .collect();
        let [used, _, ..] = set.as_slice() else {
            return None;
        };
        Some(Problem::new(
            Reason::SeveralIdentities,
            format!(
                "{} sets several identities in spec.auth ({}): {used} is used",
                self.reference,
                set.join(", ")
            ),
        ))
    }

    /// The namespace of an object that the generator references, which is the Pod's namespace by default. Only a
    /// ClusterGenerator may reference another namespace.
    fn referenced_namespace(
        self,
        namespace: Option<&str>,
        kind: &str,
        field: &str,
    ) -> Result<NamespaceName, Problem> {
        let own = self.namespace;
        let namespace = match namespace.filter(|name| !name.is_empty()) {
            None => own.clone(),
            Some(name) => {
                NamespaceName::new(name).ok_or_else(|| self.invalid_name(name, field, "namespace name"))?
            }
        };
        if namespace == *own || self.reference.kind == Kind::ClusterGenerator {
            return Ok(namespace);
        }
        Err(Problem::new(
            Reason::CrossNamespaceNotAllowed,
            format!(
                "{} references a {kind} in namespace {namespace}, which only a ClusterGenerator may do: remove {field}",
                self.reference
            ),
        ))
    }

    /// Parses a name. The schemas of older versions of the CRDs accept any text.
    fn object_name(self, name: &str, field: &str) -> Result<ObjectName, Problem> {
        ObjectName::new(name).ok_or_else(|| self.invalid_name(name, field, "object name"))
    }

    fn invalid_name(self, name: &str, field: &str, kind: &str) -> Problem {
        self.invalid(&format!(
            "has an invalid {field}: {} is not a valid {kind}",
            UntrustedText::quoted(name).at_most(MAX_SHOWN_BYTES)
        ))
    }

    /// Where a tenant id is set that no annotation of a service account sets.
    fn tenant_id_location(self, source: &TenantIdSource) -> String {
        match source {
            TenantIdSource::Flag => "--tenant-id of the webhook".to_owned(),
            _ => format!("spec.tenantId of {}", self.reference),
        }
    }

    fn invalid(self, what: &str) -> Problem {
        Problem::new(Reason::GeneratorInvalid, format!("{} {what}", self.reference))
    }

    /// The problem of a field of the generator, with the command that corrects the field.
    fn field_problem(self, field: SpecField, problem: Problem) -> Problem {
        problem.at(self.reference).command(self.patch_command(field))
    }

    fn patch_command(self, field: SpecField) -> String {
        self.reference.patch_command(self.namespace, field)
    }
}

/// The cluster-wide rules for the resolution of generators.
#[derive(Clone, Debug)]
pub struct ResolveRules {
    /// The DNS suffixes of the registries that may receive tokens.
    pub registry_suffixes: RegistrySuffixes,
    /// The default tenant id.
    pub tenant_id: Option<String>,
    /// The permitted audiences of assertions. The first is always requested, the others if a generator lists them.
    pub token_audiences: Vec<String>,
    /// The endpoints of each cloud.
    pub clouds: Clouds,
    /// The namespaces whose Pods may use the webhook's managed identity.
    pub managed_identity_namespaces: NamespaceList,
    /// The namespaces whose service accounts may not be used.
    pub excluded: ExcludedNamespaces,
}

impl ResolveRules {
    /// The service account that the generator uses for a Pod with the service account `pod_service_account`. If that is
    /// not known, a generator that uses it is refused, because any service account would be a guess.
    pub fn service_account(
        &self,
        generator: GeneratorInNamespace<'_>,
        pod_service_account: Option<&ObjectName>,
    ) -> Result<ServiceAccount, Problem> {
        let WorkloadIdentityAuth { service_account_ref } = match generator.selected_auth()? {
            SelectedAuth::WorkloadIdentity(auth) => auth,
            SelectedAuth::ServicePrincipal(_) | SelectedAuth::ManagedIdentity(_) => {
                return Ok(ServiceAccount::NotNeeded);
            }
        };
        let Some(reference) = service_account_ref else {
            let account = pod_service_account.ok_or_else(|| {
                generator.invalid(
                    "now uses the service accounts of Pods, and this pull secret is of another identity: recreate its Pods",
                )
            })?;
            return Ok(ServiceAccount::OfPod(account.clone()));
        };
        let name = generator.object_name(&reference.name, "serviceAccountRef.name")?;
        let namespace = generator.referenced_namespace(
            reference.namespace.as_deref(),
            "service account",
            "serviceAccountRef.namespace",
        )?;
        let account = NamespacedName { namespace, name };
        self.excluded.check_service_account(&account)?;
        Ok(ServiceAccount::Named(account))
    }

    /// Resolves the generator to the inputs of its token.
    pub fn resolve(
        &self,
        generator: GeneratorInNamespace<'_>,
        account: &ServiceAccount,
        annotations: &ServiceAccountAnnotations,
    ) -> Result<TokenInputs, Problem> {
        let registry = self.registry(generator)?;
        let cloud = self.cloud_endpoints(generator)?;
        let scope = generator
            .spec
            .scope
            .as_deref()
            .filter(|scope| !scope.is_empty())
            .map(Scope::parse)
            .transpose()
            .map_err(|problem| generator.field_problem(SpecField::Scope, problem))?;
        let identity = match generator.selected_auth()? {
            SelectedAuth::ServicePrincipal(auth) => {
                Identity::ServicePrincipal(self.service_principal(generator, auth, cloud)?)
            }
            SelectedAuth::ManagedIdentity(auth) => {
                Identity::Managed(self.managed_identity(generator, auth, cloud)?)
            }
            SelectedAuth::WorkloadIdentity(auth) => {
                Identity::Workload(self.workload_identity(generator, auth, account, annotations, cloud)?)
            }
        };
        Ok(TokenInputs {
            identity,
            registry,
            scope,
        })
    }

    /// The registry of the generator, if tokens may be sent to it.
    pub fn registry(&self, generator: GeneratorInNamespace<'_>) -> Result<RegistryHost, Problem> {
        let registry = self
            .registry_suffixes
            .permit(&generator.spec.registry)
            .map_err(|problem| generator.field_problem(SpecField::Registry, problem))?;
        let cloud = Cloud::from(generator.spec.environment_type);
        // A token of one cloud is useless in another cloud, and must not be sent there.
        match Cloud::of_registry(registry.as_str()) {
            Some(owner) if owner != cloud && cloud != Cloud::AzureStack => Err(Problem::new(
                Reason::RegistryNotAllowed,
                format!(
                    "{}: {registry} is a registry of {owner}, but spec.environmentType is {cloud}: correct one of them",
                    generator.reference
                ),
            )),
            _ => Ok(registry),
        }
    }

    fn cloud_endpoints(&self, generator: GeneratorInNamespace<'_>) -> Result<CloudEndpoints, Problem> {
        self.clouds
            .endpoints(generator.spec.environment_type.into())
            .ok_or_else(|| {
                generator.invalid(
                    "uses environmentType AzureStackCloud, but the webhook has no --authority-host for it",
                )
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
