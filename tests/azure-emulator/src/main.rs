//! `azure-emulator serve` and `azure-emulator apply`.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use azure_emulator::{ControlClient, Emulator, Options, World};
use clap::{Parser, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Microsoft Entra ID and Azure Container Registry for tests, in front of a real registry.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a world. Prints one line of JSON with the addresses when ready; SIGTERM or SIGINT ends it.
    Serve {
        /// YAML file that says which tenants, applications, issuers and registries there are.
        #[arg(long, value_name = "FILE")]
        world: PathBuf,
        /// Where Entra and the registries listen (HTTPS). Port 0 takes a free one.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        https: SocketAddr,
        /// Where the control port listens (plain HTTP). It shows secrets: keep it to yourself.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        control: SocketAddr,
        /// Where a CONNECT proxy for Azure's names listens. Without it there is none.
        #[arg(long, value_name = "ADDR")]
        proxy: Option<SocketAddr>,
        /// Where managed identities get their tokens (plain HTTP), as from IMDS and App Service. Without it there are none.
        #[arg(long, value_name = "ADDR")]
        imds: Option<SocketAddr>,
        /// Folder that keeps the certificate authority (ca.crt, ca.key) from one start to the next.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Replace the world of a running emulator.
    Apply {
        /// YAML file; `-` for standard input.
        #[arg(short, long, value_name = "FILE")]
        filename: PathBuf,
        /// The control port.
        #[arg(long, value_name = "URL", env = "AZURE_EMULATOR_CONTROL")]
        control: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve {
            world,
            https,
            control,
            proxy,
            imds,
            data,
        } => {
            serve(
                &world,
                Options {
                    https,
                    control,
                    proxy,
                    imds,
                    data,
                },
            )
            .await
        }
        Command::Apply { filename, control } => apply(&filename, &control).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("azure-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(world: &Path, options: Options) -> Outcome {
    // Before anything else: as process 1 of a container, an unhandled signal would be ignored.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let data = options.data.clone();
    let emulator = Emulator::start(World::load(world)?, options)?;
    let ready = json!({
        "https": emulator.https_addr(),
        "control": emulator.control_addr(),
        "proxy": emulator.proxy_addr(),
        "imds": emulator.imds_addr(),
        "ca": data.map(|folder| folder.join("ca.crt")),
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{ready}")?;
    stdout.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn apply(filename: &Path, control: &str) -> Outcome {
    let yaml = if filename == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        World::parse(&text)?
    } else {
        // Read here first: so a mistake is told with the file's own name.
        World::load(filename)?
    };
    ControlClient::new(control)?.apply(yaml.yaml()).await?;
    println!("applied");
    Ok(())
}
