//! The `acr-pull-webhook` program.

use acr_pull_webhook::{
    check,
    cli::{Cli, Command},
    crds, serve, telemetry,
};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("acr-pull-webhook: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    match cli.command {
        Command::Crds(args) => {
            print!("{}", crds::yaml(args.without_generators));
            Ok(())
        }
        Command::Check(args) => {
            runtime()?.block_on(check::run(&args.namespace))?;
            println!("the API server asks the webhook, and gets its answer");
            Ok(())
        }
        Command::Serve(args) => {
            telemetry::init_log(&args.log)?;
            runtime()?.block_on(serve::run(*args))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "another TLS provider is installed already".to_owned())?;
    tokio::runtime::Runtime::new().map_err(|e| format!("the runtime cannot be started: {e}"))
}
