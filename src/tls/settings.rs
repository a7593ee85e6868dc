//! The flags of the listener and its certificate.

use super::{Clients, Places, Terms};
use crate::{deadline::duration, kubernetes};
use std::{path::PathBuf, time::Duration};

/// Where the serving certificate comes from, and who may call.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsArgs {
    /// PEM file with a serving certificate chain that somebody else makes; read anew when it changes. Without it the
    /// webhook makes its own
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TLS_CERT",
        requires = "tls_key",
        value_name = "FILE"
    )]
    pub tls_cert: Option<PathBuf>,

    /// PEM file with the private key of --tls-cert
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TLS_KEY",
        requires = "tls_cert",
        value_name = "FILE"
    )]
    pub tls_key: Option<PathBuf>,

    /// Secret in which the webhook keeps its secret path and the certificates it makes; without a namespace, in the Pod's own
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TLS_SECRET",
        default_value = "acr-pull-webhook-certificates",
        value_name = "[NAMESPACE/]NAME"
    )]
    pub tls_secret: String,

    /// DNS names and IP addresses by which the API server calls, separated by commas; by default
    /// acr-pull-webhook.NAMESPACE.svc, of the Secret's namespace
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TLS_NAMES",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub tls_names: Vec<String>,

    /// MutatingWebhookConfiguration in which the secret path, and the authority of these certificates, are published
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_WEBHOOK_CONFIGURATION",
        default_value = "acr-pull-webhook",
        value_name = "NAME"
    )]
    pub webhook_configuration: String,

    /// Life of the certificates that the webhook makes; they are replaced, and the secret path with them, when two thirds of
    /// it have passed
    #[arg(long, env = "ACR_PULL_WEBHOOK_CERTIFICATE_LIFETIME", default_value = "2160h", value_parser = duration, value_name = "DURATION")]
    pub certificate_lifetime: Duration,

    /// PEM file with the authority of the API servers' client certificates: nobody else may call then
    #[arg(long, env = "ACR_PULL_WEBHOOK_CLIENT_CA_FILE", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,

    /// Common names or DNS names of the API servers' client certificates, separated by commas; by default every certificate of
    /// --client-ca-file is accepted
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_CLIENT_NAMES",
        requires = "client_ca_file",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub client_names: Vec<String>,

    /// The most connections at the same time; for a further one, the one that is missed least makes room
    #[arg(long, env = "ACR_PULL_WEBHOOK_MAX_CONNECTIONS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub max_connections: u32,
}

/// Below this, a rotation would have no time to be known.
const MIN_LIFETIME: Duration = Duration::from_secs(15);

/// Where path and certificate come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Chain and key of the certificate, where somebody else makes it.
    pub files: Option<(PathBuf, PathBuf)>,
    /// Where the webhook keeps what it makes itself.
    pub places: Places,
    /// What it makes.
    pub terms: Terms,
}

// === impl TlsArgs ===

impl TlsArgs {
    /// The client certificates that are accepted; None where none is asked for.
    pub fn clients(&self) -> Option<Clients> {
        let names = self.client_names.iter().filter(|name| !name.is_empty());
        Some(Clients {
            authority: self.client_ca_file.clone()?,
            names: names.cloned().collect(),
        })
    }

    /// The source that the flags name; an error is a sentence for the operator.
    pub fn source(&self) -> Result<Source, String> {
        if self.certificate_lifetime < MIN_LIFETIME {
            return Err(format!(
                "--certificate-lifetime is {:?}; it must be at least {MIN_LIFETIME:?}",
                self.certificate_lifetime
            ));
        }
        let (namespace, name) = match self.tls_secret.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, self.tls_secret.as_str()),
        };
        let namespace = kubernetes::namespace_from_flag("--tls-secret", namespace)?;
        for name in [&namespace, name] {
            if !kubernetes::is_subdomain(name) {
                return Err(format!(
                    "--tls-secret {}: {name:?} is no name of an object",
                    self.tls_secret
                ));
            }
        }
        let places = Places {
            secret: (namespace.clone(), name.to_owned()),
            registration: self.webhook_configuration.clone(),
        };
        let lifetime = self.certificate_lifetime;
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Ok(Source {
                files: Some((cert.clone(), key.clone())),
                places,
                terms: Terms::of_files(lifetime),
            });
        }
        let mut names: Vec<_> = self
            .tls_names
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        if names.is_empty() {
            names.push(format!("acr-pull-webhook.{namespace}.svc"));
        }
        Ok(Source {
            files: None,
            places,
            terms: Terms::new(names, lifetime)?,
        })
    }
}
