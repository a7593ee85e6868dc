//! Registry host names, and the suffixes that may receive an Entra token.

use crate::{
    names::is_dns_name,
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};
use serde::Serialize;
use std::{fmt, str::FromStr};

/// The domain suffixes of the login servers in Azure's clouds. azurecr.de is not among them: that cloud closed in 2021,
/// and a later owner of the domain would receive tokens.
pub const DEFAULT_SUFFIXES: &str = "azurecr.io,azurecr.cn,azurecr.us";

/// The maximum length of an invalid registry in a message.
const MAX_SHOWN_BYTES: usize = 64;

/// The domain suffixes of the registries that may receive a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrySuffixes(Vec<String>);

impl RegistrySuffixes {
    /// Checks the generator's `spec.registry`.
    pub fn permit(&self, registry: &str) -> Result<RegistryHost, Problem> {
        // This check bounds the length before the name is copied.
        if !is_dns_name(registry) {
            return Err(Problem::new(
                Reason::RegistryNotAllowed,
                "spec.registry is not a plain host name: write the login server, such as contoso.azurecr.io",
            )
            .quoting(registry));
        }
        let host = registry.to_ascii_lowercase();
        // A suffix may be the name of one registry, which it then permits. azurecr.io is not the name of a registry.
        let is_registry = |suffix: &str| suffix.matches('.').count() >= 2;
        let permitted = self.0.iter().any(|suffix| {
            host.strip_suffix(suffix)
                .is_some_and(|rest| rest.ends_with('.') || (rest.is_empty() && is_registry(suffix)))
        });
        if !permitted {
            let shown = UntrustedText::quoted(registry).at_most(MAX_SHOWN_BYTES);
            // The name of a registry without its domain is what Azure's own commands take.
            let advice = match (host.contains('.'), self.0.first()) {
                (false, Some(suffix)) => format!("write its login server, such as {host}.{suffix}"),
                _ => "correct it, or have its suffix added to --registry-suffixes".to_owned(),
            };
            return Err(Problem::new(
                Reason::RegistryNotAllowed,
                format!("spec.registry {shown} is not under a permitted suffix: {advice}"),
            )
            .quoting(&self.to_string()));
        }
        Ok(RegistryHost(host))
    }
}

impl FromStr for RegistrySuffixes {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        list.split(',')
            .map(|item| {
                let suffix = item.trim().trim_start_matches('.').to_ascii_lowercase();
                // A top-level domain as a suffix would permit nearly every host.
                if is_dns_name(&suffix) && suffix.contains('.') {
                    Ok(suffix)
                } else {
                    Err(format!("{item:?} is not a domain suffix such as azurecr.io"))
                }
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for RegistrySuffixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// A registry's login server, lower case, under a permitted suffix.
///
/// Only [`RegistrySuffixes::permit`] creates one, so code that has a `RegistryHost` may send a token to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegistryHost(String);

impl RegistryHost {
    /// The host name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RegistryHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(registry: &str) -> Result<RegistryHost, Problem> {
        DEFAULT_SUFFIXES
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit(registry)
    }

    #[test]
    fn azure_login_servers_are_permitted_in_lower_case() {
        for host in [
            "contoso.azurecr.io",
            "contoso-a1b2.azurecr.cn",
            "contoso.eastus.geo.azurecr.io",
        ] {
            assert_eq!(permit(host).unwrap().as_str(), host);
        }
        assert_eq!(
            permit("Contoso.AzureCR.io").unwrap().as_str(),
            "contoso.azurecr.io"
        );
    }

    #[test]
    fn the_refusal_of_a_name_without_a_domain_suggests_the_login_server() {
        let problem = permit("contoso").unwrap_err();
        assert!(problem.fact.ends_with("such as contoso.azurecr.io"), "{problem}");
    }

    #[test]
    fn a_host_outside_the_suffixes_never_receives_a_token() {
        for host in [
            "evil.example.com",
            "contoso.azurecr.io.evil.example.com",
            "evilazurecr.io",
            "azurecr.io",
            "contoso.azurecr.de",
            ".azurecr.io",
            "contoso.azurecr.io.",
            "https://contoso.azurecr.io",
            "contoso.azurecr.io:8443",
            "contoso.azurecr.io/team",
            "evil.example.com/.azurecr.io",
            "user@contoso.azurecr.io",
            "evil.example.com#.azurecr.io",
            "evil.example.com?.azurecr.io",
            "-contoso.azurecr.io",
            "",
            "contoso.azurecr.io\n",
        ] {
            assert_eq!(
                permit(host).unwrap_err().reason,
                Reason::RegistryNotAllowed,
                "{host:?}"
            );
        }
    }

    #[test]
    fn a_suffix_that_is_a_registry_name_permits_only_that_registry() {
        let suffixes: RegistrySuffixes = "contoso.azurecr.io".parse().unwrap();
        assert!(suffixes.permit("contoso.azurecr.io").is_ok());
        for other in ["fabrikam.azurecr.io", "evilcontoso.azurecr.io", "azurecr.io"] {
            assert!(suffixes.permit(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_top_level_domain_is_not_a_valid_suffix() {
        assert!("io".parse::<RegistrySuffixes>().is_err());
        assert!("".parse::<RegistrySuffixes>().is_err());
        assert!("azurecr.io,".parse::<RegistrySuffixes>().is_err());
        assert_eq!(
            ".corp.example".parse::<RegistrySuffixes>().unwrap().to_string(),
            "corp.example"
        );
    }
}
