//! Azure's clouds: where each one's Entra listens.

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};

/// A cloud that a generator's `environmentType` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cloud {
    /// The public cloud.
    Public,
    /// Azure Government.
    UsGovernment,
    /// Azure operated by 21Vianet.
    China,
    /// Azure Germany, closed in 2021; its names are kept for old generators.
    Germany,
}

impl Cloud {
    /// The host of the cloud's Entra.
    pub fn authority_host(self) -> &'static str {
        match self {
            Cloud::Public => "login.microsoftonline.com",
            Cloud::UsGovernment => "login.microsoftonline.us",
            Cloud::China => "login.chinacloudapi.cn",
            Cloud::Germany => "login.microsoftonline.de",
        }
    }

    /// The same for azure_identity. Always set, so that `AZURE_AUTHORITY_HOST` in the
    /// environment cannot send one cloud's assertion to another's Entra.
    pub fn configuration(self) -> CloudConfiguration {
        let mut custom = CustomConfiguration::default();
        custom.authority_host = format!("https://{}", self.authority_host());
        custom.into()
    }
}
