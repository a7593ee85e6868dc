//! The flags of `check` and `explain`.

use crate::deadline::duration;
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Flags of `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Also check each hop of a pull with this generator: the name of an ACRAccessToken, or ClusterGenerator/NAME. By
    /// default, with --namespace: the default of the namespace, or all of its ACRAccessTokens
    #[arg(value_name = "GENERATOR", requires = "namespace")]
    pub generator: Option<String>,

    /// Namespace of the pull and of the test Pod; you must be allowed to create Pods there
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Service account of the Pod that pulls
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub service_account: String,

    /// Image to request with the token, such as contoso.azurecr.io/team/app:1
    #[arg(long, value_name = "IMAGE", requires = "namespace")]
    pub image: Option<String>,

    /// Comma-separated parts to check; by default all
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LIST")]
    pub only: Vec<Part>,

    /// Repeat the checks for this long until all is well, such as 60s
    #[arg(long, default_value = "0s", value_parser = duration, value_name = "DURATION")]
    pub wait: Duration,

    #[command(flatten)]
    /// What `check` and `explain` have in common.
    pub common: CommonArgs,
}

impl CheckArgs {
    /// Whether a part is checked.
    pub fn includes(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

/// A part of `check`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The objects of the installation
    Installation,
    /// The issuer of service account tokens
    Issuer,
    /// A dry run of a Pod that the webhook must refuse
    RoundTrip,
    /// Each hop of a pull in --namespace
    Pull,
}

/// Flags of `explain`.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// Object to explain: pod/NAME, or a workload such as deployment/NAME
    #[arg(
        value_name = "KIND/NAME",
        required_unless_present = "file",
        conflicts_with = "file"
    )]
    pub object: Option<String>,

    /// Manifest with Pods or workloads, as YAML or JSON; - for the standard input
    #[arg(long, short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Namespace of the object; by default that of the kubeconfig's context
    #[arg(long, short, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    #[command(flatten)]
    /// What `check` and `explain` have in common.
    pub common: CommonArgs,
}

/// Flags of both `check` and `explain`.
#[derive(Clone, Debug, Args)]
pub struct CommonArgs {
    /// Context of the kubeconfig; by default its current context
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace of the webhook; by default that of the Service in its MutatingWebhookConfiguration
    #[arg(long, value_name = "NAMESPACE")]
    pub webhook_namespace: Option<String>,

    /// Format of the report
    #[arg(long, short, value_enum, default_value = "text", value_name = "FORMAT")]
    pub output: Output,

    /// Flags of serve that replace those of the running webhook, such as -- --tenant-id=…; the files that they name are
    /// on this machine
    #[arg(last = true, value_name = "SERVE_FLAGS")]
    pub serve_flags: Vec<String>,
}

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Lines for a person
    Text,
    /// One JSON document
    Json,
}
