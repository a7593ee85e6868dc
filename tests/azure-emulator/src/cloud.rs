//! The host names and audiences of the Azure clouds that this program stands in for.

/// Hosts of Entra's token endpoint: public, US Government, China, and the former German cloud, each with its other names.
const LOGIN_HOSTS: [&str; 9] = [
    "login.microsoftonline.com",
    "login.windows.net",
    "login.microsoft.com",
    "sts.windows.net",
    "login.microsoftonline.us",
    "login.usgovcloudapi.net",
    "login.chinacloudapi.cn",
    "login.partner.microsoftonline.cn",
    "login.microsoftonline.de",
];

/// Under these suffixes live the registries of the clouds.
const REGISTRY_SUFFIXES: [&str; 4] = [".azurecr.io", ".azurecr.us", ".azurecr.cn", ".azurecr.de"];

/// The audience that every registry accepts.
pub(crate) const REGISTRY_AUDIENCE: &str = "https://containerregistry.azure.net";

/// Per-cloud spellings of the registry audience: public sources do not settle whether they exist, so a world may opt in.
const OTHER_REGISTRY_AUDIENCES: [&str; 2] = [
    "https://containerregistry.azure.cn",
    "https://containerregistry.azure.us",
];

/// Azure Resource Manager's audiences, by which registries may also be entered unless they say no.
const ARM_AUDIENCES: [&str; 8] = [
    "https://management.azure.com",
    "https://management.core.windows.net",
    "https://management.usgovcloudapi.net",
    "https://management.core.usgovcloudapi.net",
    "https://management.chinacloudapi.cn",
    "https://management.core.chinacloudapi.cn",
    "https://management.microsoftazure.de",
    "https://management.core.cloudapi.de",
];

pub(crate) fn is_login_host(host: &str) -> bool {
    LOGIN_HOSTS.contains(&host)
}

/// Whether the name could be a registry's, in any of the clouds.
pub(crate) fn is_registry_name(host: &str) -> bool {
    REGISTRY_SUFFIXES
        .iter()
        .any(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
}

/// An ARM audience, with or without the slash that some clients keep.
pub(crate) fn is_arm_audience(audience: &str) -> bool {
    ARM_AUDIENCES.contains(&audience.trim_end_matches('/'))
}

/// Whether Entra knows the resource, so that a token for it can be had.
pub(crate) fn is_known_resource(resource: &str) -> bool {
    let resource = resource.trim_end_matches('/');
    resource == REGISTRY_AUDIENCE || OTHER_REGISTRY_AUDIENCES.contains(&resource) || is_arm_audience(resource)
}

/// A host name as it is compared: lower case, no port, no trailing dot.
pub(crate) fn normalized_host(authority: &str) -> String {
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
    fn only_names_under_a_registry_suffix_are_registries() {
        assert!(is_registry_name("contoso.azurecr.io"));
        assert!(is_registry_name("contoso.westeurope.geo.azurecr.io"));
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
    fn arm_audiences_are_known_with_and_without_their_slash() {
        assert!(is_arm_audience("https://management.core.windows.net/"));
        assert!(is_arm_audience("https://management.azure.com"));
        assert!(!is_arm_audience(REGISTRY_AUDIENCE));
        assert!(!is_known_resource("https://contoso.azurecr.io"));
    }

    #[test]
    fn hosts_are_compared_without_case_port_and_trailing_dot() {
        assert_eq!(normalized_host("Contoso.AzureCR.io:443"), "contoso.azurecr.io");
        assert_eq!(normalized_host("contoso.azurecr.io."), "contoso.azurecr.io");
    }
}
