//! The program `acr-pull-webhook`.

use acr_pull_webhook::{Cli, run};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("acr-pull-webhook: {error}");
            ExitCode::FAILURE
        }
    }
}
