//! The program `acr-pull-webhook`.

use acr_pull_webhook::{
    check,
    cli::{Cli, Command},
    crds, serve,
    start_error::StartError,
    telemetry,
};
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

fn run(cli: Cli) -> Result<(), StartError> {
    match cli.command {
        Command::Crds(args) => {
            print!("{}", crds::yaml(args.without_generators));
            Ok(())
        }
        Command::Check(args) => {
            runtime()?.block_on(check::run(&args.namespace))?;
            println!("OK: the API server can call the webhook and trusts its certificate");
            Ok(())
        }
        Command::Serve(args) => {
            telemetry::init_log(&args.log)?;
            runtime()?.block_on(serve::run(*args))
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, StartError> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| StartError::Outcome("another TLS provider is already installed".to_owned()))?;
    tokio::runtime::Runtime::new().map_err(StartError::failed("cannot start the runtime"))
}
