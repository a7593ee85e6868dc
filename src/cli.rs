//! Command line: every flag documented here, once.

use crate::{
    generator::NamespaceList, identity::CloudSetting, leader::LeaderElectionArgs,
    pull_secret::OnUpstreamFailure, registry::RegistrySuffixes, telemetry::LogArgs, tls::TlsArgs,
};
use clap::{Args, Parser, Subcommand};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Gives annotated Pods image pull secrets for Azure Container Registry, by their own identity.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the admission webhook
    Serve(Box<ServeArgs>),
    /// Print the custom resource definitions as YAML
    Crds(CrdsArgs),
    /// Ask the API server, by a dry run, for a Pod that the webhook must refuse: the proof that it is called
    Check(CheckArgs),
}

/// Where to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Namespace in which to ask; Pods must be creatable there
    #[arg(long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,
}

/// What to print.
#[derive(Clone, Copy, Debug, Args)]
pub struct CrdsArgs {
    /// Leave out ACRAccessToken and ClusterGenerator, which External Secrets Operator brings where it is installed
    #[arg(long)]
    pub without_generators: bool,
}

/// How to serve.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Where the API server reaches the webhook (HTTPS, POST to the secret path)
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_LISTEN_ADDR",
        default_value = "0.0.0.0:8443",
        value_name = "ADDRESS"
    )]
    pub listen_addr: SocketAddr,

    /// Where /livez, /readyz and /metrics are served (plain HTTP)
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_ADMIN_ADDR",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    pub admin_addr: SocketAddr,

    /// Entra tenant where neither the service account nor the generator names one
    #[arg(long, env = "AZURE_TENANT_ID", value_name = "ID")]
    pub tenant_id: Option<String>,

    /// PEM file with certificate authorities to trust for Azure, beside the public ones
    #[arg(long, env = "ACR_PULL_WEBHOOK_EXTRA_CA_FILE", value_name = "FILE")]
    pub extra_ca_file: Option<PathBuf>,

    /// Domain suffixes of registries that may be sent a token, separated by commas
    #[arg(long, env = "ACR_PULL_WEBHOOK_REGISTRY_SUFFIXES", default_value = crate::registry::DEFAULT_SUFFIXES, value_name = "LIST")]
    pub registry_suffixes: RegistrySuffixes,

    /// Audiences of the service account token that Entra exchanges, separated by commas: the first is always
    /// asked for, and is what federated credentials must name; the others where a generator asks for them
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TOKEN_AUDIENCES",
        default_value = "api://AzureADTokenExchange",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub token_audiences: Vec<String>,

    /// Host of Entra, as CLOUD=HOST, separated by commas; a host alone is that of AzureStackCloud. The clouds are
    /// PublicCloud, USGovernmentCloud, ChinaCloud, GermanCloud and AzureStackCloud
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_AUTHORITY_HOST",
        value_delimiter = ',',
        value_name = "[CLOUD=]HOST"
    )]
    pub authority_host: Vec<CloudSetting>,

    /// Audience of the Entra token that the registry exchanges, as CLOUD=AUDIENCE, separated by commas; an
    /// audience alone is that of every cloud not named
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_ACR_AUDIENCE",
        default_value = crate::identity::DEFAULT_ACR_AUDIENCE,
        value_delimiter = ',',
        value_name = "[CLOUD=]AUDIENCE"
    )]
    pub acr_audience: Vec<CloudSetting>,

    /// Namespaces to look after, separated by commas; by default all. With a list, neither ClusterGenerators nor defaults of
    /// Namespaces can be used: these are the cluster's
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_NAMESPACES",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub namespaces: Vec<String>,

    /// Namespaces whose Pods never get a pull secret, separated by commas, beside kube-system and the webhook's own. The
    /// registration leaves out the same ones
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_EXCLUDED_NAMESPACES",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub excluded_namespaces: Vec<String>,

    /// Namespaces whose Pods may use the webhook's own managed identity, separated by commas, or * for all
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_MANAGED_IDENTITY_NAMESPACES",
        default_value = "",
        hide_default_value = true,
        value_name = "LIST"
    )]
    pub managed_identity_namespaces: NamespaceList,

    /// What to do with a Pod whose token Azure does not give just now
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_ON_UPSTREAM_FAILURE",
        default_value = "admit",
        value_name = "ANSWER"
    )]
    pub on_upstream_failure: OnUpstreamFailure,

    /// The most calls at the same time by this replica to one host (Entra, a registry, the endpoint of managed identities,
    /// the API server); further ones take turns by namespace. All hosts together: four times as many
    #[arg(long, env = "ACR_PULL_WEBHOOK_ISSUE_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    pub issue_concurrency: u16,

    /// The most ACRPullSecrets of one namespace; a Pod that would need one more is refused
    #[arg(long, env = "ACR_PULL_WEBHOOK_MAX_PULL_SECRETS_PER_NAMESPACE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub max_pull_secrets_per_namespace: u32,

    /// How long no Pod names a pull secret before its end is announced by status.unusedSince, such as 1h or 30m
    #[arg(long, env = "ACR_PULL_WEBHOOK_UNUSED_GRACE", default_value = "1h", value_parser = crate::deadline::duration, value_name = "DURATION")]
    pub unused_grace: Duration,

    /// How long after the announcement the pull secret is deleted; longer than an admission lasts and a watch lags
    #[arg(long, env = "ACR_PULL_WEBHOOK_UNUSED_NOTICE", default_value = "2m", value_parser = crate::deadline::duration, value_name = "DURATION")]
    pub unused_notice: Duration,

    /// The most pull secrets that are renewed at the same time
    #[arg(long, env = "ACR_PULL_WEBHOOK_RENEWAL_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    pub renewal_concurrency: u16,

    /// The most pull secrets that are renewed in a second
    #[arg(long, env = "ACR_PULL_WEBHOOK_RENEWAL_RATE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub renewal_rate: u32,

    /// Seconds between SIGTERM and the last new connection, so that every API server has heard of our end
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_SHUTDOWN_DELAY",
        default_value_t = 5,
        value_name = "SECONDS"
    )]
    pub shutdown_delay: u64,

    #[command(flatten)]
    /// How to speak TLS.
    pub tls: TlsArgs,

    #[command(flatten)]
    /// How to elect a leader.
    pub leader_election: LeaderElectionArgs,

    #[command(flatten)]
    /// How to log.
    pub log: LogArgs,
}
