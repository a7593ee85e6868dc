//! The world: the tenants, applications, managed identities, token issuers and registries, read from YAML.

use crate::{acr::access::Right, cloud, faults::Fault, jwt::KeySet};
use jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error},
};
use std::{fs, path::Path, time::Duration};

mod check;

/// A world that was read and checked.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) spec: Spec,
}

impl World {
    /// Reads a world from YAML.
    pub fn parse(yaml: &str) -> Result<Self, WorldError> {
        Self::parse_named(yaml, "world")
    }

    /// Reads a world from a YAML file.
    pub fn load(path: &Path) -> Result<Self, WorldError> {
        let name = path.display().to_string();
        let yaml = fs::read_to_string(path)
            .map_err(|error| WorldError(format!("{name}: cannot be read: {error}")))?;
        Self::parse_named(&yaml, &name)
    }

    fn parse_named(yaml: &str, name: &str) -> Result<Self, WorldError> {
        let mut spec: Spec = from_yaml(yaml, name)?;
        let registries = spec.registries.iter_mut().map(|registry| &mut registry.host);
        for host in registries
            .chain(&mut spec.authority_hosts)
            .chain(&mut spec.unreachable_hosts)
        {
            *host = cloud::normalized_host(host);
        }
        spec.check()
            .map_err(|problem| WorldError(format!("{name}: {problem}")))?;
        Ok(Self { spec })
    }

    /// Seconds since 1970 by this world's clock.
    pub(crate) fn now(&self) -> i64 {
        Timestamp::now().as_second() + self.spec.clock.offset.as_secs()
    }

    /// The tenant with this id or domain.
    pub(crate) fn tenant(&self, id: &str) -> Option<&Tenant> {
        let mut tenants = self.spec.tenants.iter();
        tenants.find(|tenant| {
            let mut names = tenant.domains.iter().chain([&tenant.id]);
            names.any(|name| name.eq_ignore_ascii_case(id))
        })
    }

    pub(crate) fn registry(&self, host: &str) -> Option<&Registry> {
        self.spec.registries.iter().find(|registry| registry.host == host)
    }

    pub(crate) fn is_login_host(&self, host: &str) -> bool {
        cloud::is_login_host(host) || self.spec.authority_hosts.iter().any(|known| known == host)
    }

    pub(crate) fn is_unreachable(&self, host: &str) -> bool {
        self.spec.unreachable_hosts.iter().any(|known| known == host)
    }

    pub(crate) fn keys_of(&self, issuer: &str) -> Option<&KeySet> {
        let mut issuers = self.spec.issuers.iter();
        Some(&issuers.find(|known| known.issuer == issuer)?.jwks)
    }
}

/// A sentence that describes what is wrong with a world or a list of faults.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WorldError(String);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Spec {
    #[serde(default)]
    pub tenants: Vec<Tenant>,
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    #[serde(default)]
    pub registries: Vec<Registry>,
    #[serde(default)]
    pub managed_identities: Vec<ManagedIdentity>,
    pub app_service: Option<AppService>,
    /// Login hosts in addition to those of the public clouds, such as an Azure Stack Hub's.
    #[serde(default)]
    pub authority_hosts: Vec<String>,
    /// Hosts to which the proxy never opens a connection.
    #[serde(default)]
    pub unreachable_hosts: Vec<String>,
    #[serde(default)]
    pub tokens: Tokens,
    #[serde(default)]
    pub clock: Clock,
    #[serde(default)]
    pub faults: Vec<Fault>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tenant {
    pub id: String,
    /// The domains of the tenant, such as `contoso.onmicrosoft.com`.
    #[serde(default)]
    pub domains: Vec<String>,
    #[serde(default)]
    pub applications: Vec<Application>,
}

impl Tenant {
    pub fn application(&self, client_id: &str) -> Option<&Application> {
        let mut applications = self.applications.iter();
        applications.find(|application| application.client_id.eq_ignore_ascii_case(client_id))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Application {
    pub client_id: String,
    #[serde(default)]
    pub secrets: Vec<String>,
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FederatedCredential {
    pub issuer: String,
    pub subject: String,
    #[serde(default = "default_audience")]
    pub audience: String,
}

fn default_audience() -> String {
    "api://AzureADTokenExchange".to_owned()
}

/// An issuer of assertions.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Issuer {
    pub issuer: String,
    pub jwks: KeySet,
}

/// A managed identity. All are assigned to the machine and to the App Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ManagedIdentity {
    pub client_id: String,
    pub resource_id: Option<String>,
    pub tenant: String,
    /// Whether a request that names no identity is for this one.
    #[serde(default)]
    pub system_assigned: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct AppService {
    /// The value of `IDENTITY_HEADER`, a secret that requests must contain.
    pub identity_header: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Registry {
    pub host: String,
    pub tenant: String,
    /// The real registry, `http://host:port`.
    pub upstream: String,
    #[serde(default)]
    pub rights: Vec<Right>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Tokens {
    #[serde(deserialize_with = "duration")]
    pub acr_refresh_lifetime: Duration,
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            acr_refresh_lifetime: Duration::from_secs(3 * 3600),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Clock {
    /// How far this Azure's clock is ahead of the machine's.
    pub offset: SignedDuration,
}

/// Parses YAML. The error contains the name of the source, the line and the field.
pub fn from_yaml<T: DeserializeOwned>(yaml: &str, name: &str) -> Result<T, WorldError> {
    serde_saphyr::from_str(yaml).map_err(|error| {
        let error = error.without_snippet();
        let text = error.to_string();
        // The parser's message repeats the position at its end.
        let message = text
            .split_once(" at line ")
            .map_or(&*text, |(message, _)| message);
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        WorldError(match error.location() {
            Some(place) => format!("{name}:{}:{}: {message}", place.line(), place.column()),
            None => format!("{name}: {message}"),
        })
    })
}

/// A duration such as `250ms` or `3h` that is not negative.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let duration = SignedDuration::deserialize(deserializer)?;
    duration.try_into().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests;
