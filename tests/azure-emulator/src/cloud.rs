//! The host names of the Azure clouds, and the audience of their registries.

/// The hosts of Entra: public cloud, US Government, China, and the former German cloud.
const LOGIN_HOSTS: [&str; 4] = [
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.chinacloudapi.cn",
    "login.microsoftonline.de",
];

/// The domains of registries, in the same order.
const REGISTRY_SUFFIXES: [&str; 4] = [".azurecr.io", ".azurecr.us", ".azurecr.cn", ".azurecr.de"];

/// The audience of Entra tokens for registries.
pub const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

pub fn is_login_host(host: &str) -> bool {
    LOGIN_HOSTS.contains(&host)
}

/// Whether a registry could have this name.
pub fn is_registry_name(host: &str) -> bool {
    let is_under = |suffix: &&str| host.len() > suffix.len() && host.ends_with(suffix);
    REGISTRY_SUFFIXES.iter().any(is_under)
}

/// The host in the form that is compared: lower case, without port and trailing dot.
pub fn normalized_host(authority: &str) -> String {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_a_registry_domain_are_names_of_registries() {
        assert!(is_registry_name("contoso.azurecr.io"));
        for host in [
            "azurecr.io",
            ".azurecr.io",
            "contoso.azurecr.io.evil.example.com",
            "evilazurecr.io",
        ] {
            assert!(!is_registry_name(host), "{host}");
        }
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_trailing_dot() {
        assert_eq!(normalized_host("Contoso.AzureCR.io:443"), "contoso.azurecr.io");
        assert_eq!(normalized_host("contoso.azurecr.io."), "contoso.azurecr.io");
    }
}
