//! Logs on stderr.

use crate::start_error::StartError;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    filter::{LevelFilter, Targets, filter_fn},
    fmt,
    prelude::*,
    registry,
};

/// Logging flags.
#[derive(Clone, Debug, clap::Args)]
pub struct LogArgs {
    /// Log level: off, error, warn, info, debug or trace; also per module, as in warn,acr_pull_webhook=debug
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_LOG_LEVEL",
        default_value = "info",
        value_name = "LEVEL"
    )]
    pub log_level: String,

    /// Log as plain text, or as one JSON object per line
    #[arg(
        long,
        env = "ACR_PULL_WEBHOOK_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub log_format: LogFormat,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum LogFormat {
    /// Plain text.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging.
pub fn init(args: &LogArgs) -> Result<(), StartError> {
    // At info, libraries log each of their calls. The webhook's own lines already report the whole operation.
    let directives = match args.log_level.as_str() {
        "info" => "warn,acr_pull_webhook=info",
        other => other,
    };
    let filter = filter(directives).map_err(StartError::failed(format!(
        "--log-level {:?} is not a level or filter",
        args.log_level
    )))?;
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match args.log_format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let lines = lines.with_filter(filter_fn(|line| !may_contain_a_body(line)));
    let started = registry().with(lines).with(filter).try_init();
    started.map_err(StartError::failed("logging cannot be started"))
}

/// Whether a line may contain a response body. kube's client logs the body of a response that it cannot decode at WARN;
/// the body may be the token of a TokenRequest, or all objects of a list.
fn may_contain_a_body(line: &Metadata<'_>) -> bool {
    line.target() == "kube_client::client" && *line.level() <= Level::WARN
}

/// Parses a list of levels and `target=level` directives. The last directive for a target applies; a target without a
/// level logs everything.
fn filter(directives: &str) -> Result<Targets, String> {
    let mut all = directives
        .split(',')
        .map(str::trim)
        .filter(|d| !d.is_empty())
        .peekable();
    if all.peek().is_none() {
        return Ok(Targets::new().with_default(LevelFilter::ERROR));
    }
    all.try_fold(Targets::new(), |filter, directive| {
        if let Ok(level) = directive.parse::<LevelFilter>() {
            return Ok(filter.with_default(level));
        }
        let (target, level) = match directive.split_once('=') {
            None | Some((_, "")) => (directive.trim_end_matches('='), LevelFilter::TRACE),
            Some((target, level)) => {
                let level = level.parse();
                (target, level.map_err(|e| format!("{directive:?}: {e}"))?)
            }
        };
        // Only characters of Rust module paths: a target with any other character would silently match nothing.
        let is_valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '-' | '.');
        if !target.is_empty() && target.chars().all(is_valid) {
            Ok(filter.with_target(target, level))
        } else {
            Err(format!("{directive:?} is neither a level nor target=level"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn a_filter_is_a_level_or_a_level_per_target() {
        let would =
            |directives: &str, target: &str, level| filter(directives).unwrap().would_enable(target, &level);
        for (directives, target, level, expected) in [
            ("warn", "kube_client", Level::WARN, true),
            ("WARN", "kube_client", Level::INFO, false),
            ("off", "kube_client", Level::ERROR, false),
            ("", "kube_client", Level::ERROR, true),
            ("", "kube_client", Level::WARN, false),
            (
                "warn,acr_pull_webhook=info",
                "acr_pull_webhook::admission",
                Level::INFO,
                true,
            ),
            ("warn,acr_pull_webhook=info", "kube_client", Level::INFO, false),
            (
                "warn, kube_client::client=debug,",
                "kube_client::client",
                Level::DEBUG,
                true,
            ),
            ("kube_client", "kube_client", Level::TRACE, true),
            ("kube_client=", "kube_client", Level::TRACE, true),
            ("kube_client=debug", "acr_pull_webhook", Level::ERROR, false),
        ] {
            assert_eq!(
                would(directives, target, level),
                expected,
                "{directives:?} {target} {level}"
            );
        }
    }

    #[test]
    fn an_invalid_directive_is_quoted_in_the_error() {
        for bad in [
            "kube_client=loud",
            "[request]=debug",
            "kube_client[request{id=1}]=debug",
            "=info",
            "a=b=info",
            "all of it",
        ] {
            let refusal = filter(&format!("warn,{bad}")).unwrap_err();
            assert!(refusal.starts_with(&format!("{bad:?}")), "{refusal}");
        }
    }
}
