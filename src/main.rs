//! The program `acr-pull-webhook`.

use acr_pull_webhook::{Cli, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse_command_line()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("acr-pull-webhook: {error}");
            ExitCode::FAILURE
        }
    }
}
