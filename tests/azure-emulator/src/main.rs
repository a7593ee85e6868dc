//! The command line: `azure-emulator serve`.

use azure_emulator::{Emulator, Options, World};
use clap::{Parser, Subcommand};
use serde_json::json;
use std::{
    error::Error,
    io::{Write, stdout},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};
use tokio::signal::unix::{SignalKind, signal};

/// Microsoft Entra ID and Azure Container Registry for tests, in front of a real registry.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a world. Prints one line of JSON with the addresses when ready, and ends on SIGTERM or SIGINT.
    Serve {
        /// YAML file with the tenants, applications, issuers and registries.
        #[arg(long, value_name = "FILE")]
        world: PathBuf,
        /// Listen address of Entra and of the registries (HTTPS). Port 0 selects a free port.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        https: SocketAddr,
        /// Listen address of the control port (plain HTTP). It returns secrets, so restrict access to it.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        control: SocketAddr,
        /// Listen address of a CONNECT proxy for Azure's names. Without it there is no proxy.
        #[arg(long, value_name = "ADDR")]
        proxy: Option<SocketAddr>,
        /// Listen address of the token endpoints of managed identities, IMDS and App Service (plain HTTP). Without it
        /// there are none.
        #[arg(long, value_name = "ADDR")]
        imds: Option<SocketAddr>,
        /// Folder that keeps the certificate authority (ca.crt, ca.key) between restarts. Without it, each start creates
        /// one in memory.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Command::Serve {
        world,
        https,
        control,
        proxy,
        imds,
        data,
    } = Cli::parse().command;
    let options = Options {
        https,
        control,
        proxy,
        imds,
        data,
    };
    match serve(&world, options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("azure-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(world: &Path, options: Options) -> Result<(), Box<dyn Error>> {
    // The kernel ignores signals that process 1 of a container does not handle, so this is the first step.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ca = options.data.as_ref().map(|folder| folder.join("ca.crt"));
    let emulator = Emulator::start(World::load(world)?, options)?;
    let ready = json!({
        "https": emulator.https_addr(),
        "control": emulator.control_addr(),
        "proxy": emulator.proxy_addr(),
        "imds": emulator.imds_addr(),
        "ca": ca,
    });
    let mut stdout = stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
