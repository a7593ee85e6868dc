//! Programs that tests start.

use std::{ffi::OsStr, process::Stdio};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

/// A program with its arguments and its standard input.
pub struct Run {
    command: tokio::process::Command,
    input: String,
    /// Files that exist until the program ends.
    files: Option<TempDir>,
}

impl Run {
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = tokio::process::Command::new(program);
        command.kill_on_drop(true);
        Self {
            command,
            input: String::new(),
            files: None,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = text.into();
        self
    }

    pub(crate) fn files(mut self, files: TempDir) -> Self {
        self.files = Some(files);
        self
    }

    /// Runs the program. Returns its standard output, or its standard error if it fails.
    pub async fn outcome(mut self) -> Result<String, String> {
        let _waiting = testkit::waiting_for(&format!("{:?}", self.command.as_std()));
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?} cannot be started: {error}", self.command.as_std()));
        let mut stdin = child.stdin.take().unwrap();
        let write = async {
            // A program that fails does not read all of its input.
            let _ = stdin.write_all(self.input.as_bytes()).await;
            drop(stdin);
        };
        let ((), output) = tokio::join!(write, child.wait_with_output());
        let output = output.unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Runs the program, which must succeed, and returns its standard output.
    pub async fn succeed(self) -> String {
        let line = format!("{:?}", self.command.as_std());
        let outcome = self.outcome().await;
        outcome.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Runs the program, which must fail, and returns its standard error.
    pub async fn fail(self) -> String {
        let line = format!("{:?}", self.command.as_std());
        match self.outcome().await {
            Ok(_) => panic!("{line} succeeded, but should have failed"),
            Err(error) => error,
        }
    }
}
