//! The program behind `make generate`: writes the files that are generated from the program.

use documents::files;
use std::process::ExitCode;

fn main() -> ExitCode {
    match files::generated().and_then(|files| files::write(&files)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("documents: {error}");
            ExitCode::FAILURE
        }
    }
}
