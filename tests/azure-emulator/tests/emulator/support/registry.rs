//! The test registry as a process, and the scripts of this repository. The webhook's integration tests use this file,
//! too.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

/// The test registry: empty, in memory, until dropped.
pub struct Registry {
    process: Child,
    pub url: String,
}

impl Registry {
    pub fn start() -> Self {
        static PROGRAM: LazyLock<String> = LazyLock::new(|| script("tests/registry/build.sh", &[]));
        let folder = fresh_folder("registry");
        let config = folder.join("config.yml");
        fs::write(
            &config,
            "version: 0.1\nlog: {level: info}\nstorage: {inmemory: {}}\nhttp: {addr: '127.0.0.1:0'}\n",
        )
        .unwrap();
        let mut process = Command::new(PROGRAM.as_str())
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", PROGRAM.as_str()));
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let address = line.split_once("listening on ")?.1;
            Some(address.split(['"', ' ']).next().unwrap().to_owned())
        });
        // The registry would block if nothing read the pipe.
        thread::spawn(move || lines.for_each(drop));
        Self {
            process,
            url: format!(
                "http://{}",
                address.expect("the registry ended before it listened")
            ),
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The root of the repository. It is found at run time: with a target folder that several clones share, cargo runs a
/// program that was compiled in another clone.
pub fn repository() -> PathBuf {
    env::current_dir()
        .unwrap()
        .ancestors()
        .find(|folder| folder.join("tests/registry/build.sh").exists())
        .unwrap()
        .to_owned()
}

/// An empty folder of this test run.
pub fn fresh_folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let unique = format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Runs a script of this repository and returns the line it prints. Its standard error is passed through.
pub fn script(path: &str, arguments: &[&str]) -> String {
    let output = Command::new(repository().join(path))
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{path}: {error}"));
    assert!(
        output.status.success(),
        "{path} {arguments:?} failed; its own message is above"
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
