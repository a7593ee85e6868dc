//! The content of a pull secret, as the kubelet reads it.
//! Source: <https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/>.

use crate::registry::{RegistryHost, TOKEN_USER};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

/// A `.dockerconfigjson` for one registry. The kubelet reads only user name and password, or `auth`; it ignores an
/// `identitytoken`.
pub fn docker_config(registry: &RegistryHost, token: &SecretString) -> SecretString {
    let password = token.expose_secret();
    let auth = STANDARD.encode(format!("{TOKEN_USER}:{password}"));
    json!({"auths": {registry.as_str(): {"username": TOKEN_USER, "password": password, "auth": auth}}})
        .to_string()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RegistrySuffixes;

    #[test]
    fn user_name_and_password_are_under_the_registry() {
        let host = "azurecr.io"
            .parse::<RegistrySuffixes>()
            .unwrap()
            .permit("contoso.azurecr.io")
            .unwrap();
        let config: serde_json::Value =
            serde_json::from_str(docker_config(&host, &"pass\"word".to_owned().into()).expose_secret())
                .unwrap();
        let entry = &config["auths"]["contoso.azurecr.io"];
        assert_eq!(entry["username"], TOKEN_USER);
        assert_eq!(entry["password"], "pass\"word");
        let auth = STANDARD.decode(entry["auth"].as_str().unwrap()).unwrap();
        assert_eq!(auth, format!("{TOKEN_USER}:pass\"word").into_bytes());
    }
}
