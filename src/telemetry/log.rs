//! Logs on stderr.

use tracing_subscriber::EnvFilter;

/// How to log.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Verbosity: off, error, warn, info, debug, trace, or tracing's directive syntax (target=level,…)
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,

    /// Log as text for people, or as one JSON object a line
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging.
pub fn init(args: &LogArgs) -> Result<(), String> {
    // At info, libraries tell of each call what we tell of the whole.
    let directives = match args.log_level.as_str() {
        "info" => "warn,acr_pull_webhook=info",
        other => other,
    };
    let filter = EnvFilter::try_new(directives)
        .map_err(|e| format!("--log-level {:?} is not a level or filter: {e}", args.log_level))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|e| format!("logging cannot be started: {e}"))
}
