//! The command line. Each flag is documented here only.

mod check;

pub use check::{CheckArgs, CommonArgs, ExplainArgs, Output, Part};

use crate::{
    excluded::ExcludedNamespaces,
    generator::{NamespaceList, ResolveRules},
    identity::{CloudSetting, Clouds},
    leader::LeaderElectionArgs,
    pull_secret::OnUpstreamFailure,
    registry::RegistrySuffixes,
    telemetry::LogArgs,
    tls::TlsArgs,
};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The name of the program as a plugin of kubectl.
/// Source: <https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/>.
const PLUGIN: &str = "kubectl-acr_pull";

/// How the program is called: by its own name, or as a plugin of kubectl.
pub fn program_name() -> &'static str {
    let program = std::env::args_os().next();
    let name = program
        .as_deref()
        .and_then(|program| Path::new(program).file_stem());
    if name.is_some_and(|name| name == PLUGIN) {
        "kubectl acr-pull"
    } else {
        "acr-pull-webhook"
    }
}

/// Gives annotated Pods image pull secrets for Azure Container Registry, issued with their own identity.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Parses the command line of this process, and ends the process if it is invalid.
    pub fn parse_command_line() -> Self {
        let matches = Self::command().bin_name(program_name()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the admission webhook
    Serve(Box<ServeArgs>),
    /// Print the custom resource definitions as YAML
    Crds(CrdsArgs),
    /// Check the installation and, with --namespace, each hop of a pull, as far as your permissions reach. The exit
    /// status is 0 if all is well, 1 if something is wrong, and 2 if something could not be checked
    Check(CheckArgs),
    /// Explain what the webhook does with a Pod or a workload, and why. The exit status is that of check
    Explain(ExplainArgs),
}

/// Flags of `crds`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CrdsArgs {
    /// Omit ACRAccessToken and ClusterGenerator, for clusters where External Secrets Operator installs them
    #[arg(long)]
    pub without_generators: bool,
}

/// Flags of `serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address of the webhook for the API server (HTTPS, POST to the secret path); [::] stands for all addresses, IPv4 and
    /// IPv6, also on a node without IPv6
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_LISTEN_ADDR",
        default_value = "[::]:8443",
        value_name = "ADDRESS"
    )]
    pub listen_addr: SocketAddr,

    /// Address of /livez, /readyz and /metrics (plain HTTP)
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_ADMIN_ADDR",
        default_value = "[::]:8080",
        value_name = "ADDRESS"
    )]
    pub admin_addr: SocketAddr,

    /// Entra tenant to use if neither the service account nor the generator names one
    #[arg(long, env = "AZURE_TENANT_ID", value_name = "ID")]
    pub tenant_id: Option<String>,

    /// PEM file with certificate authorities to trust for Azure, in addition to the public ones
    #[arg(long, env = "ACR_PULL_WEBHOOK_EXTRA_CA_FILE", value_name = "FILE")]
    pub extra_ca_file: Option<PathBuf>,

    /// Comma-separated domain suffixes or login servers of the registries to which tokens may be sent
    #[arg(long, env = "ACR_PULL_WEBHOOK_REGISTRY_SUFFIXES", default_value = crate::registry::DEFAULT_SUFFIXES, value_name = "LIST")]
    pub registry_suffixes: RegistrySuffixes,

    /// Comma-separated audiences of the service account token that Entra exchanges. The first is always requested, and
    /// federated credentials must name it; the others are requested only if a generator lists them
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_TOKEN_AUDIENCES",
        default_value = "api://AzureADTokenExchange",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub token_audiences: Vec<String>,

    /// Comma-separated hosts of Entra, each as CLOUD=HOST; a host without a cloud is for AzureStackCloud. The clouds
    /// are PublicCloud, USGovernmentCloud, ChinaCloud, GermanCloud and AzureStackCloud
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_AUTHORITY_HOST",
        value_delimiter = ',',
        value_name = "[CLOUD=]HOST"
    )]
    pub authority_host: Vec<CloudSetting>,

    /// Comma-separated audiences of the Entra token that the registry exchanges, each as CLOUD=AUDIENCE; an audience
    /// without a cloud is for all clouds that are not listed
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_ACR_AUDIENCE",
        default_value = crate::identity::DEFAULT_ACR_AUDIENCE,
        value_delimiter = ',',
        value_name = "[CLOUD=]AUDIENCE"
    )]
    pub acr_audience: Vec<CloudSetting>,

    /// Comma-separated namespaces to watch; by default all. With a list, neither ClusterGenerators nor the defaults of
    /// Namespaces can be used, because ClusterGenerators and Namespaces are cluster-scoped
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_NAMESPACES",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub namespaces: Vec<String>,

    /// Comma-separated namespaces whose Pods never get a pull secret, in addition to kube-system and the webhook's own.
    /// The MutatingWebhookConfiguration excludes the same ones
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_EXCLUDED_NAMESPACES",
        value_delimiter = ',',
        value_name = "LIST"
    )]
    pub excluded_namespaces: Vec<String>,

    /// Comma-separated namespaces whose Pods may use the webhook's own managed identity, or * for all
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_MANAGED_IDENTITY_NAMESPACES",
        default_value = "",
        hide_default_value = true,
        value_name = "LIST"
    )]
    pub managed_identity_namespaces: NamespaceList,

    /// What to do with a Pod if Azure does not return its token in time
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_ON_UPSTREAM_FAILURE",
        default_value = "admit",
        value_name = "ANSWER"
    )]
    pub on_upstream_failure: OnUpstreamFailure,

    /// Maximum number of concurrent calls of this replica to one host (Entra, a registry, the endpoint of managed
    /// identities, the API server), and four times as many to all hosts together; further calls wait, and namespaces
    /// take turns
    #[arg(long, env = "ACR_PULL_WEBHOOK_ISSUE_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    pub issue_concurrency: u16,

    /// Maximum number of ACRPullSecrets per namespace; a Pod that would need another one is rejected
    #[arg(long, env = "ACR_PULL_WEBHOOK_MAX_PULL_SECRETS_PER_NAMESPACE", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub max_pull_secrets_per_namespace: u32,

    /// Comma-separated labels for every pull Secret and ACRPullSecret, such as those that a policy of the cluster
    /// demands; the ValidatingAdmissionPolicies of the deployment must permit the same ones
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_PULL_SECRET_LABELS",
        value_delimiter = ',',
        value_name = "KEY=VALUE,…"
    )]
    pub pull_secret_labels: Vec<String>,

    /// Comma-separated annotations for every pull Secret and ACRPullSecret, whose values contain no comma; the
    /// ValidatingAdmissionPolicies of the deployment must permit the same ones
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_PULL_SECRET_ANNOTATIONS",
        value_delimiter = ',',
        value_name = "KEY=VALUE,…"
    )]
    pub pull_secret_annotations: Vec<String>,

    /// Announce the deletion of a pull secret in status.unusedSince after no Pod has named it for this long, such as 1h
    /// or 30m
    #[arg(long, env = "ACR_PULL_WEBHOOK_UNUSED_GRACE", default_value = "1h", value_parser = crate::deadline::duration, value_name = "DURATION")]
    pub unused_grace: Duration,

    /// Delete the pull secret this long after the announcement; must exceed the duration of an admission and the lag of
    /// a watch
    #[arg(long, env = "ACR_PULL_WEBHOOK_UNUSED_NOTICE", default_value = "2m", value_parser = crate::deadline::duration, value_name = "DURATION")]
    pub unused_notice: Duration,

    /// Maximum number of concurrent renewals
    #[arg(long, env = "ACR_PULL_WEBHOOK_RENEWAL_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..), value_name = "NUMBER")]
    pub renewal_concurrency: u16,

    /// Maximum number of renewals per second
    #[arg(long, env = "ACR_PULL_WEBHOOK_RENEWAL_RATE", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..), value_name = "NUMBER")]
    pub renewal_rate: u32,

    /// Seconds to keep accepting connections after SIGTERM, so that all API servers stop sending requests first
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_SHUTDOWN_DELAY",
        default_value_t = 5,
        value_name = "SECONDS"
    )]
    pub shutdown_delay: u64,

    #[command(flatten)]
    /// TLS flags.
    pub tls: TlsArgs,

    #[command(flatten)]
    /// Leader election flags.
    pub leader_election: LeaderElectionArgs,

    #[command(flatten)]
    /// Logging flags.
    pub log: LogArgs,
}

impl ServeArgs {
    /// The rules for the resolution of generators.
    pub fn resolve_rules(&self, excluded: ExcludedNamespaces) -> ResolveRules {
        ResolveRules {
            registry_suffixes: self.registry_suffixes.clone(),
            tenant_id: self.tenant_id.clone().filter(|id| !id.is_empty()),
            token_audiences: self.token_audiences.clone(),
            clouds: Clouds::new(&self.authority_host, &self.acr_audience),
            managed_identity_namespaces: self.managed_identity_namespaces.clone(),
            excluded,
        }
    }
}
