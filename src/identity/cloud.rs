//! Azure's clouds: the host of each cloud's Entra, and the token audience that its registries accept.

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, str::FromStr};

/// The audience that public sources give for the registries of every cloud.
pub const DEFAULT_ACR_AUDIENCE: &str = "https://containerregistry.azure.net";

/// An Azure cloud, the value of a generator's `environmentType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cloud {
    /// The public cloud.
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
    /// Azure Germany, closed in 2021. Old generators still contain its name.
    Germany,
    /// Azure Stack Hub, which has other hosts in each installation.
    AzureStack,
}

impl Cloud {
    const NAMES: [(&'static str, Cloud); 5] = [
        ("PublicCloud", Cloud::Public),
        ("USGovernmentCloud", Cloud::UsGovernment),
        ("ChinaCloud", Cloud::China),
        ("GermanCloud", Cloud::Germany),
        ("AzureStackCloud", Cloud::AzureStack),
    ];

    /// The cloud of a registry, if its host is in one of Azure's own domains.
    pub fn of_registry(host: &str) -> Option<Self> {
        const SUFFIXES: [(&str, Cloud); 4] = [
            (".azurecr.io", Cloud::Public),
            (".azurecr.us", Cloud::UsGovernment),
            (".azurecr.cn", Cloud::China),
            (".azurecr.de", Cloud::Germany),
        ];
        let found = SUFFIXES.iter().find(|(suffix, _)| host.ends_with(suffix));
        found.map(|(_, cloud)| *cloud)
    }

    fn authority_host(self) -> Option<&'static str> {
        match self {
            Cloud::Public => Some("login.microsoftonline.com"),
            Cloud::UsGovernment => Some("login.microsoftonline.us"),
            Cloud::China => Some("login.chinacloudapi.cn"),
            Cloud::Germany => Some("login.microsoftonline.de"),
            Cloud::AzureStack => None,
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, cloud)| cloud == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

/// The Entra host of a cloud, and the audience of its registries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CloudEndpoints {
    /// The host of Entra.
    pub authority_host: String,
    /// The audience of a token for a registry.
    pub acr_audience: String,
}

impl CloudEndpoints {
    /// The configuration for azure_identity. It is always set, so that `AZURE_AUTHORITY_HOST` in the environment cannot
    /// send one cloud's assertion to the Entra of another cloud.
    pub fn configuration(&self) -> CloudConfiguration {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = format!("https://{}", self.authority_host);
        custom.into()
    }
}

impl fmt::Display for CloudEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority_host)
    }
}

/// The endpoints of the clouds, with the administrator's settings.
#[derive(Clone, Debug, Default)]
pub struct Clouds {
    authority_hosts: BTreeMap<Cloud, String>,
    acr_audiences: BTreeMap<Cloud, String>,
    acr_audience: Option<String>,
}

impl Clouds {
    /// Applies the settings to the defaults. An authority host without a cloud is for Azure Stack Hub, an audience
    /// without a cloud is for every cloud.
    pub fn new(authority_hosts: &[CloudSetting], acr_audiences: &[CloudSetting]) -> Self {
        let mut clouds = Self::default();
        for setting in authority_hosts {
            let host = setting.value.trim_start_matches("https://").trim_end_matches('/');
            let cloud = setting.cloud.unwrap_or(Cloud::AzureStack);
            clouds.authority_hosts.insert(cloud, host.to_owned());
        }
        for setting in acr_audiences {
            let audience = setting.value.trim_end_matches('/').to_owned();
            match setting.cloud {
                Some(cloud) => drop(clouds.acr_audiences.insert(cloud, audience)),
                None => clouds.acr_audience = Some(audience),
            }
        }
        clouds
    }

    /// The cloud's endpoints; `None` for Azure Stack Hub if it has no authority host.
    pub fn endpoints(&self, cloud: Cloud) -> Option<CloudEndpoints> {
        let authority_host = match self.authority_hosts.get(&cloud) {
            Some(host) => host,
            None => cloud.authority_host()?,
        };
        let acr_audience = self.acr_audiences.get(&cloud).or(self.acr_audience.as_ref());
        Some(CloudEndpoints {
            authority_host: authority_host.to_owned(),
            acr_audience: acr_audience
                .map_or(DEFAULT_ACR_AUDIENCE, String::as_str)
                .to_owned(),
        })
    }
}

/// The value of a flag: `CLOUD=VALUE`, or a value without a cloud.
#[derive(Clone, Debug)]
pub struct CloudSetting {
    cloud: Option<Cloud>,
    value: String,
}

impl FromStr for CloudSetting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (cloud, value) = match text.split_once('=') {
            None => (None, text),
            Some((name, value)) => {
                let known = Cloud::NAMES.iter().find(|(known, _)| *known == name.trim());
                let names = Cloud::NAMES.map(|(name, _)| name).join(", ");
                let (_, cloud) =
                    known.ok_or_else(|| format!("{name:?} is not an Azure cloud; the clouds are {names}"))?;
                (Some(*cloud), value)
            }
        };
        let value = value.trim().to_owned();
        if value.is_empty() {
            return Err(format!("{text:?} has no value"));
        }
        Ok(Self { cloud, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clouds(hosts: &[&str], audiences: &[&str]) -> Clouds {
        let parse = |all: &[&str]| all.iter().map(|s| s.parse().unwrap()).collect::<Vec<_>>();
        Clouds::new(&parse(hosts), &parse(audiences))
    }

    #[test]
    fn clouds_have_their_own_authority_and_a_common_audience_unless_set() {
        let defaults = clouds(&[], &[]);
        assert_eq!(
            defaults.endpoints(Cloud::UsGovernment).unwrap().authority_host,
            "login.microsoftonline.us"
        );
        assert_eq!(
            defaults.endpoints(Cloud::China).unwrap().acr_audience,
            DEFAULT_ACR_AUDIENCE
        );
        assert_eq!(defaults.endpoints(Cloud::AzureStack), None);
        let set = clouds(
            &[
                "https://login.stack.example/",
                "ChinaCloud=login.partner.microsoftonline.cn",
            ],
            &[
                "ChinaCloud=https://containerregistry.azure.cn",
                "https://other.example/",
            ],
        );
        assert_eq!(
            set.endpoints(Cloud::AzureStack).unwrap().authority_host,
            "login.stack.example"
        );
        let china = set.endpoints(Cloud::China).unwrap();
        assert_eq!(china.authority_host, "login.partner.microsoftonline.cn");
        assert_eq!(china.acr_audience, "https://containerregistry.azure.cn");
        assert_eq!(
            set.endpoints(Cloud::Public).unwrap().acr_audience,
            "https://other.example"
        );
    }

    #[test]
    fn an_unknown_cloud_is_refused_with_its_name_and_the_valid_names() {
        let error = "MoonCloud=x".parse::<CloudSetting>().unwrap_err();
        assert!(
            error.contains("MoonCloud") && error.contains("ChinaCloud"),
            "{error}"
        );
        assert!("ChinaCloud=".parse::<CloudSetting>().is_err());
    }
}
