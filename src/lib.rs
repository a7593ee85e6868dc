//! acr-pull-webhook: a Kubernetes mutating admission webhook that gives an annotated Pod an image pull secret for Azure
//! Container Registry, issued with the Pod's own identity.
//!
//! The steps of an admission, and the module of each:
//!
//! 1. `admission` decodes the AdmissionReview and the annotation.
//! 2. `generator` resolves the annotation's reference to a registry, an identity and a scope.
//! 3. `pull_secret` names the Secret. If the Secret is not fresh, `identity` obtains a token from Entra,
//!    `registry` exchanges it for a registry token, and `pull_secret` writes the Secret.
//! 4. `admission` returns the patch.
//!
//! `leader` elects one replica, and `upkeep` renews, repairs and deletes pull secrets on that replica. Admission
//! does not depend on it.
//!
//! Below these modules, `watch` follows the objects of a `cluster`, `kubernetes` calls its API server, and
//! `transport` and `fair_semaphore` limit and share the calls to all hosts. `tls` accepts the API server's
//! connections, `telemetry` reports to operators, and `serve` puts all modules together. `check` finds out with a person's
//! permissions whether all of this works in a cluster. `names` has the
//! grammar of every name, and `reference` the references to generators.
//!
//! Only what tests and other programs use is public, so that the compiler finds what nothing uses: the command line, the
//! kinds and their definitions, names and references, the fair semaphore, whose documentation has an example, and what
//! `tools/documents` and `tests/chart` describe: reasons and metrics.

mod admission;
pub mod check;
mod cli;
mod cluster;
pub mod crds;
mod deadline;
mod events;
mod excluded;
pub mod fair_semaphore;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod generator;
mod identity;
mod jwt;
mod kubernetes;
mod leader;
mod live_pod;
pub mod names;
mod pem;
mod problem;
pub mod pull_secret;
pub mod reference;
mod registry;
mod serve;
mod start_error;
mod tasks;
mod telemetry;
mod text;
mod tls;
mod transport;
mod ttl_cache;
mod untrusted;
mod upkeep;
mod watch;

pub use cli::Cli;
pub use problem::{Class, Reason};
pub use start_error::StartError;
pub use telemetry::metrics_reference;

use cli::Command;
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// Runs the subcommand to its end. The exit status is that of the process.
pub fn run(cli: Cli) -> Result<ExitCode, StartError> {
    match cli.command {
        Command::Crds(args) => {
            print!("{}", crds::yaml(args.without_generators));
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => Ok(runtime()?.block_on(check::run(&args))),
        Command::Explain(args) => Ok(runtime()?.block_on(check::run_explain(&args))),
        Command::Serve(args) => {
            telemetry::init_log(&args.log)?;
            runtime()?.block_on(serve::run(*args))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn runtime() -> Result<Runtime, StartError> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| StartError::Outcome("another TLS provider is already installed".to_owned()))?;
    Runtime::new().map_err(StartError::failed("cannot start the runtime"))
}
