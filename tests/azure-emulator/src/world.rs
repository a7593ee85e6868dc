//! The world: which tenants, applications, token issuers and registries exist, read from YAML.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::acr::access::Right;
use crate::cloud;
use crate::duration;
use crate::faults::Fault;
use crate::jwt::KeySet;

mod check;
mod managed_identity;

pub(crate) use managed_identity::{AppService, ManagedIdentity};

/// A world that was read and checked.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) spec: Spec,
    yaml: String,
}

/// What is wrong with a world (or a list of faults), in one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorldError(pub(crate) String);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(default)]
    pub(crate) tenants: Vec<Tenant>,
    #[serde(default)]
    pub(crate) issuers: Vec<Issuer>,
    #[serde(default)]
    pub(crate) registries: Vec<Registry>,
    #[serde(default)]
    pub(crate) managed_identities: Vec<ManagedIdentity>,
    pub(crate) app_service: Option<AppService>,
    /// Hosts that are Entra's beside the public clouds' own, as in an Azure Stack Hub.
    #[serde(default)]
    pub(crate) authority_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) tokens: Tokens,
    #[serde(default)]
    pub(crate) clock: Clock,
    #[serde(default)]
    pub(crate) faults: Vec<Fault>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Tenant {
    pub(crate) id: String,
    /// Domain names by which the tenant may be called instead of its id.
    #[serde(default)]
    pub(crate) domains: Vec<String>,
    #[serde(default)]
    pub(crate) applications: Vec<Application>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Application {
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
    #[serde(default)]
    pub(crate) federated_credentials: Vec<FederatedCredential>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct FederatedCredential {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    #[serde(default = "default_assertion_audience")]
    pub(crate) audience: String,
}

/// Where the keys of a token issuer are found: exactly one of the three.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Issuer {
    pub(crate) issuer: String,
    pub(crate) jwks: Option<KeySet>,
    pub(crate) jwks_file: Option<PathBuf>,
    pub(crate) jwks_url: Option<String>,
    /// PEM file with the authorities that may have signed the certificate of `jwksUrl`.
    pub(crate) ca_file: Option<PathBuf>,
    /// File with the bearer token to show at `jwksUrl`.
    pub(crate) bearer_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Registry {
    pub(crate) host: String,
    pub(crate) tenant: String,
    /// The real registry behind it, `http://host:port`.
    pub(crate) upstream: String,
    #[serde(default = "default_registry_audiences")]
    pub(crate) audiences: Vec<String>,
    /// Azure's `authentication-as-arm` policy.
    #[serde(default = "yes")]
    pub(crate) accept_arm_tokens: bool,
    /// Role assignment mode "RBAC Registry + ABAC Repository Permissions": a missing right is refused when the token is asked for.
    #[serde(default)]
    pub(crate) abac: bool,
    #[serde(default)]
    pub(crate) rights: Vec<Right>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Tokens {
    #[serde(with = "duration")]
    pub(crate) entra_lifetime: Duration,
    #[serde(with = "duration")]
    pub(crate) managed_identity_lifetime: Duration,
    #[serde(with = "duration")]
    pub(crate) acr_refresh_lifetime: Duration,
    #[serde(with = "duration")]
    pub(crate) acr_access_lifetime: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Clock {
    /// How far this Azure's clock is ahead of the machine's, in seconds.
    #[serde(with = "duration::signed_seconds")]
    pub(crate) offset: i64,
    /// How far an assertion may lie outside its validity.
    #[serde(with = "duration")]
    pub(crate) tolerance: Duration,
}

// === impl World ===

impl World {
    /// Reads a world from YAML text.
    pub fn parse(yaml: &str) -> Result<Self, WorldError> {
        Self::parse_named(yaml, "world")
    }

    /// Reads a world from a YAML file.
    pub fn load(path: &Path) -> Result<Self, WorldError> {
        let name = path.display().to_string();
        let yaml =
            std::fs::read_to_string(path).map_err(|e| WorldError(format!("{name}: cannot be read: {e}")))?;
        Self::parse_named(&yaml, &name)
    }

    /// The YAML text that the world was read from.
    pub fn yaml(&self) -> &str {
        &self.yaml
    }

    fn parse_named(yaml: &str, name: &str) -> Result<Self, WorldError> {
        let mut spec: Spec = from_yaml(yaml, name)?;
        for registry in &mut spec.registries {
            registry.host = cloud::normalized_host(&registry.host);
        }
        for host in &mut spec.authority_hosts {
            *host = cloud::normalized_host(host);
        }
        spec.check()
            .map_err(|problem| WorldError(format!("{name}: {problem}")))?;
        Ok(Self {
            spec,
            yaml: yaml.to_owned(),
        })
    }

    pub(crate) fn tenant(&self, id_or_domain: &str) -> Option<&Tenant> {
        self.spec.tenants.iter().find(|tenant| {
            let names = std::iter::once(&tenant.id).chain(&tenant.domains);
            names
                .into_iter()
                .any(|name| name.eq_ignore_ascii_case(id_or_domain))
        })
    }

    pub(crate) fn registry(&self, host: &str) -> Option<&Registry> {
        self.spec.registries.iter().find(|registry| registry.host == host)
    }

    pub(crate) fn is_login_host(&self, host: &str) -> bool {
        cloud::is_login_host(host) || self.spec.authority_hosts.iter().any(|known| known == host)
    }

    pub(crate) fn managed_identity(&self, tenant: &str, client_id: &str) -> Option<&ManagedIdentity> {
        self.spec
            .managed_identities
            .iter()
            .find(|one| one.tenant == tenant && one.client_id.eq_ignore_ascii_case(client_id))
    }

    pub(crate) fn issuer(&self, issuer: &str) -> Option<&Issuer> {
        self.spec.issuers.iter().find(|known| known.issuer == issuer)
    }
}

impl Tenant {
    pub(crate) fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications
            .iter()
            .find(|application| application.client_id.eq_ignore_ascii_case(client_id))
    }
}

/// Parses YAML; the error names the source, the line and the field.
pub(crate) fn from_yaml<T: serde::de::DeserializeOwned>(yaml: &str, name: &str) -> Result<T, WorldError> {
    serde_saphyr::from_str(yaml).map_err(|error| {
        let error = error.without_snippet();
        match error.location() {
            Some(at) => WorldError(format!(
                "{name}:{}:{}: {}",
                at.line(),
                at.column(),
                sentence(error)
            )),
            None => WorldError(format!("{name}: {}", sentence(error))),
        }
    })
}

/// The parser's own message without the position that it repeats at the end, on one line.
fn sentence(error: &serde_saphyr::Error) -> String {
    let text = error.to_string();
    let text = text
        .split_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

// === impl Tokens, Clock ===

impl Default for Tokens {
    /// Azure's own lifetimes; Entra's vary between 60 and 90 minutes, here they do not.
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self {
            entra_lifetime: minutes(60),
            managed_identity_lifetime: minutes(24 * 60),
            acr_refresh_lifetime: minutes(180),
            acr_access_lifetime: minutes(75),
        }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            offset: 0,
            tolerance: Duration::from_secs(300),
        }
    }
}

fn default_assertion_audience() -> String {
    "api://AzureADTokenExchange".to_owned()
}

fn default_registry_audiences() -> Vec<String> {
    vec![cloud::REGISTRY_AUDIENCE.to_owned()]
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
