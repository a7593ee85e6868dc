//! The flags of the listener and its certificate.

use super::{AllowedClients, CertificateSpec, PublishTargets};
use crate::{
    deadline::duration,
    kubernetes,
    names::{NamespaceName, NamespacedName, ObjectName},
    start_error::StartError,
};
use std::{path::PathBuf, time::Duration};

/// A shorter lifetime would not leave a rotation the time to become known.
const MIN_LIFETIME: Duration = Duration::from_secs(15);

/// The source of the serving certificate, and the limits of the listener.
#[derive(Clone, Debug, clap::Args)]
pub struct TlsArgs {
    /// PEM file with the serving certificate chain; reloaded when it changes. By default, the webhook issues its own
    /// certificates
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

    /// Secret in which the webhook stores its secret path and its own certificates; the default namespace is the Pod's
    /// own
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TLS_SECRET",
        default_value = "acr-pull-webhook-certificates",
        value_name = "[NAMESPACE/]NAME"
    )]
    pub tls_secret: String,

    /// Comma-separated DNS names and IP addresses by which the API server calls the webhook; by default
    /// acr-pull-webhook.NAMESPACE.svc, with the Secret's namespace
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TLS_NAMES",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub tls_names: Vec<String>,

    /// MutatingWebhookConfiguration in which the webhook publishes the secret path and the CA of its own certificates
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_WEBHOOK_CONFIGURATION",
        default_value = "acr-pull-webhook",
        value_name = "NAME"
    )]
    pub webhook_configuration: String,

    /// Lifetime of the certificates that the webhook issues; they and the secret path are replaced after two thirds of
    /// it
    #[arg(long, env = "ACR_PULL_WEBHOOK_CERTIFICATE_LIFETIME", default_value = "2160h", value_parser = duration, value_name = "DURATION")]
    pub certificate_lifetime: Duration,

    /// PEM file with the CA of the API servers' client certificates; callers without such a certificate are rejected
    #[arg(long, env = "ACR_PULL_WEBHOOK_CLIENT_CA_FILE", value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,

    /// Comma-separated common names or DNS names of the API servers' client certificates; by default, every certificate
    /// that --client-ca-file has signed is accepted
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_CLIENT_NAMES",
        requires = "client_ca_file",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub client_names: Vec<String>,

    /// Maximum number of concurrent connections; a further one closes the connection that is needed least
    #[arg(long, env = "ACR_PULL_WEBHOOK_MAX_CONNECTIONS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub max_connections: u32,
}

impl TlsArgs {
    /// The accepted client certificates. None if clients need no certificate.
    pub fn allowed_clients(&self) -> Option<AllowedClients> {
        let names = self.client_names.iter().filter(|name| !name.is_empty());
        Some(AllowedClients {
            ca_file: self.client_ca_file.clone()?,
            names: names.cloned().collect(),
        })
    }

    /// The namespace of `--tls-secret`, if it names one, and the name.
    pub fn secret(&self) -> (Option<&str>, &str) {
        match self.tls_secret.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, &self.tls_secret),
        }
    }

    /// The source that the flags name.
    pub fn certificate_source(&self) -> Result<CertificateSource, StartError> {
        if self.certificate_lifetime < MIN_LIFETIME {
            return Err(StartError::Flag(format!(
                "--certificate-lifetime is {:?}; it must be at least {MIN_LIFETIME:?}",
                self.certificate_lifetime
            )));
        }
        let (namespace, name) = self.secret();
        let namespace = kubernetes::namespace_from_flag("--tls-secret", namespace)?;
        let invalid = |name: &str, kind| {
            StartError::Flag(format!(
                "--tls-secret {}: {name:?} is not a valid {kind}",
                self.tls_secret
            ))
        };
        let secret = NamespacedName {
            namespace: NamespaceName::new(&namespace).ok_or_else(|| invalid(&namespace, "namespace name"))?,
            name: ObjectName::new(name).ok_or_else(|| invalid(name, "object name"))?,
        };
        let targets = PublishTargets {
            secret,
            webhook_configuration: self.webhook_configuration.clone(),
        };
        let lifetime = self.certificate_lifetime;
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            return Ok(CertificateSource {
                files: Some((cert.clone(), key.clone())),
                targets,
                spec: CertificateSpec::path_only(lifetime),
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
        Ok(CertificateSource {
            files: None,
            targets,
            spec: CertificateSpec::new(names, lifetime)?,
        })
    }
}

/// The source of the certificate, and the settings of the certificate manager.
#[derive(Clone, Debug)]
pub struct CertificateSource {
    /// The files of the certificate chain and its private key, if the webhook does not issue its certificate itself.
    pub files: Option<(PathBuf, PathBuf)>,
    /// The objects in which the path and the webhook's own certificates are stored and published.
    pub targets: PublishTargets,
    /// The certificates to issue.
    pub spec: CertificateSpec,
}
