//! The options of the webhook's program.

use acr_pull_webhook::Cli;
use chart::{
    helm::{render, set, values_file},
    values::{VALID, every_authority},
};
use clap::CommandFactory;
use std::{collections::BTreeSet, io::Write};
use tempfile::NamedTempFile;

/// Variables of flags that the chart always sets.
const FLAGS: [&str; 4] = [
    "ACR_PULL_WEBHOOK_LISTEN_ADDR",
    "ACR_PULL_WEBHOOK_ADMIN_ADDR",
    "ACR_PULL_WEBHOOK_TLS_CERT",
    "ACR_PULL_WEBHOOK_TLS_KEY",
];

/// Helm parses numbers of files as floats.
#[testkit::test]
async fn a_large_number_is_not_printed_as_a_float() {
    let mut values = NamedTempFile::new().unwrap();
    write!(values, "pullSecrets: {{renewalRate: 2000000}}").unwrap();
    let rendered = render(values_file(values.path())).await;
    assert_eq!(rendered.option("RENEWAL_RATE"), "2000000");
    let rendered = render(set(["webhook.shutdownDelay=0"])).await;
    assert_eq!(rendered.option("SHUTDOWN_DELAY"), "0");
}

#[testkit::test]
async fn every_option_of_the_program_is_set_by_a_value() {
    let mut rows: Vec<_> = VALID.iter().map(|row| set(row.iter().copied())).collect();
    rows.push(every_authority());
    let mut settable = BTreeSet::new();
    for row in rows {
        settable.extend(render(row).await.settings().keys().cloned());
    }
    let variables = variables();
    assert!(variables.contains("ACR_PULL_WEBHOOK_LOG_LEVEL"), "{variables:?}");
    let unset: Vec<_> = variables.difference(&settable).collect();
    assert!(unset.is_empty(), "no value sets {unset:?}");
}

/// The variables that the program reads, except those of `FLAGS`.
fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    let subcommands = command.get_subcommands();
    let arguments = subcommands.flat_map(|subcommand| subcommand.get_arguments());
    let variables = arguments.filter_map(|argument| argument.get_env()?.to_str());
    let variables = variables.filter(|variable| !FLAGS.contains(variable));
    variables.map(str::to_owned).collect()
}
