//! A request for a manifest, as a kubelet makes it with the credentials of a pull secret.
//! Source: <https://distribution.github.io/distribution/spec/auth/token/>.

use super::{RegistryHost, TOKEN_USER};
use crate::transport;
use reqwest::{StatusCode, header::ACCEPT};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::fmt;

/// The kinds of manifests that a kubelet accepts.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// The text before the first slash.
    pub registry: String,
    /// The name of the repository.
    pub repository: String,
    /// The tag or the digest.
    pub reference: String,
}

impl ImageName {
    /// Parses a full name. `None` for an image without a registry, and for text that is not an image.
    pub fn parse(image: &str) -> Option<Self> {
        let (registry, rest) = image.trim().split_once('/')?;
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return None;
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (rest, None),
        };
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) => (repository, tag),
            None => (name, "latest"),
        };
        let is_plain = |text: &str, others: &[u8]| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || others.contains(&b))
        };
        let reference = digest.unwrap_or(tag);
        let is_valid =
            is_plain(registry, b".-:") && is_plain(repository, b"/._-") && is_plain(reference, b"._-:+=");
        // A relative segment would change the path of the request.
        (is_valid && !rest.contains("..")).then(|| Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            reference: reference.to_owned(),
        })
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.reference.contains(':') { '@' } else { ':' };
        write!(
            f,
            "{}/{}{separator}{}",
            self.registry, self.repository, self.reference
        )
    }
}

/// The outcome of a request for a manifest.
#[derive(Debug, PartialEq, Eq)]
pub enum ManifestStatus {
    /// The image can be pulled.
    Found,
    /// The token permits the pull, and the registry has no such image.
    NotFound,
    /// The registry refuses the token for this repository, with this HTTP status.
    Refused(u16),
}

/// Requests the manifest of an image with the token of a pull secret. The error says what failed.
pub async fn head_manifest(
    http: &reqwest::Client,
    host: &RegistryHost,
    image: &ImageName,
    secret: &SecretString,
) -> Result<ManifestStatus, String> {
    #[derive(Deserialize)]
    struct Token {
        access_token: SecretString,
    }
    let scope = format!("repository:{}:pull", image.repository);
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("service", host.as_str())
        .append_pair("scope", &scope)
        .finish();
    let request = http.get(format!("https://{host}/oauth2/token?{query}"));
    let reply = transport::send(request.basic_auth(TOKEN_USER, Some(secret.expose_secret())))
        .await
        .map_err(|error| error.to_string())?;
    match reply.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Ok(ManifestStatus::Refused(reply.status.as_u16()));
        }
        status => return Err(format!("{host}/oauth2/token returned HTTP {}", status.as_u16())),
    }
    // serde's error could quote the token, so it is discarded.
    let token = serde_json::from_slice::<Token>(&reply.body)
        .map_err(|_| format!("{host}/oauth2/token returned HTTP 200 without a token"))?;
    let url = format!(
        "https://{host}/v2/{}/manifests/{}",
        image.repository, image.reference
    );
    let request = http
        .head(url)
        .header(ACCEPT, MANIFESTS)
        .bearer_auth(token.access_token.expose_secret());
    let reply = transport::send(request)
        .await
        .map_err(|error| error.to_string())?;
    match reply.status {
        StatusCode::OK => Ok(ManifestStatus::Found),
        StatusCode::NOT_FOUND => Ok(ManifestStatus::NotFound),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Ok(ManifestStatus::Refused(reply.status.as_u16()))
        }
        status => Err(format!(
            "the registry {host} returned HTTP {} for the manifest",
            status.as_u16()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_split_into_registry_repository_and_reference() {
        let parsed = |image: &str| {
            ImageName::parse(image).map(|image| (image.registry, image.repository, image.reference))
        };
        let parts = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(
            parsed("contoso.azurecr.io/team/app:1"),
            parts("contoso.azurecr.io", "team/app", "1")
        );
        assert_eq!(
            parsed("contoso.azurecr.io/app"),
            parts("contoso.azurecr.io", "app", "latest")
        );
        assert_eq!(
            parsed("contoso.azurecr.io/app:1@sha256:00"),
            parts("contoso.azurecr.io", "app", "sha256:00")
        );
        assert_eq!(
            parsed("contoso.azurecr.io:443/app:1"),
            parts("contoso.azurecr.io:443", "app", "1")
        );
        for other in [
            "nginx",
            "library/nginx",
            "",
            "contoso.azurecr.io/",
            "contoso.azurecr.io/../x:1",
            "a.io/b c:1",
            "a.io/b?x=1",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }
}
