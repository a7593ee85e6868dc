//! Azure Container Registry: the hosts that may receive a token, the scope grammar, and the exchange of an Entra token
//! for a pull token.

mod clock;
mod exchange;
mod host;
mod manifest;
mod refusal;
mod scope;

pub use exchange::{PullToken, RegistryClient};
pub use host::{DEFAULT_SUFFIXES, RegistryHost, RegistrySuffixes};
pub use manifest::{ImageName, ManifestStatus, head_manifest};
pub use refusal::{assign_role_command, role_missing};
pub use scope::{MAX_SCOPE_LENGTH, Scope};

#[cfg(any(test, fuzzing))]
pub(crate) use exchange::fuzz;

/// The user name that ACR expects with a refresh token or an access token.
/// Source: <https://github.com/Azure/acr/blob/main/docs/AAD-OAuth.md>.
pub const TOKEN_USER: &str = "00000000-0000-0000-0000-000000000000";
