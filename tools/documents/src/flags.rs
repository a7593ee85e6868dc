//! The page of flags, from the command line of the program.

use crate::text::{self, cell, code, row};
use acr_pull_webhook::Cli;
use clap::{Arg, Command, CommandFactory};

/// `docs/flags.md`.
pub fn page() -> String {
    text::page(include_str!("../texts/flags.md"), &commands())
}

/// A section for each subcommand.
fn commands() -> String {
    let command = Cli::command();
    let commands = command
        .get_subcommands()
        .filter(|command| command.get_name() != "help");
    commands.map(section).collect::<Vec<_>>().join("\n")
}

fn section(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let flags = command
        .get_arguments()
        .filter(|flag| flag.get_long().is_none_or(|name| name != "help"));
    let rows: String = flags.map(flag_row).collect();
    let table = match rows.is_empty() {
        true => String::new(),
        false => format!("\n| flag or argument | variable | default | meaning |\n|---|---|---|---|\n{rows}"),
    };
    format!(
        "## acr-pull-webhook {}\n\n{}.\n{table}",
        command.get_name(),
        cell(&about)
    )
}

fn flag_row(flag: &Arg) -> String {
    let takes_value = flag.get_action().takes_values();
    let value = flag
        .get_value_names()
        .filter(|_| takes_value)
        .and_then(<[_]>::first);
    let name = match (flag.get_long(), value) {
        (Some(name), Some(value)) => format!("--{name} {value}"),
        (Some(name), None) => format!("--{name}"),
        (None, value) => value.map(ToString::to_string).unwrap_or_default(),
    };
    let variable = flag.get_env().map(|name| code(&name.to_string_lossy()));
    let defaults = flag
        .get_default_values()
        .iter()
        .filter(|_| takes_value && !flag.is_hide_default_value_set());
    let defaults: Vec<_> = defaults.map(|value| code(&value.to_string_lossy())).collect();
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = flag
        .get_possible_values()
        .iter()
        .map(|value| code(value.get_name()))
        .collect();
    let values = match takes_value && !values.is_empty() {
        true => format!(" ({})", values.join(", ")),
        false => String::new(),
    };
    row([
        code(&name),
        variable.unwrap_or_default(),
        defaults.join(", "),
        format!("{}{values}", cell(&help)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_has_its_variable_its_default_and_its_help() {
        let text = commands();
        for part in [
            "## acr-pull-webhook serve\n",
            "## acr-pull-webhook check\n",
            "| `--unused-grace DURATION` | `ACR_PULL_WEBHOOK_UNUSED_GRACE` | `1h` | ",
            "`--on-upstream-failure ANSWER` | `ACR_PULL_WEBHOOK_ON_UPSTREAM_FAILURE` | `admit` | ",
            "(`text`, `json`) |",
            "| `--without-generators` |  |  | ",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("--help"));
    }
}
