//! Runs the shell commands of documents with stand-ins for every program that would change something, and returns the
//! words with which each program was called: variables, substitutions and pipes are evaluated by the real shell.

use crate::repository;
use documents::markdown::{Block, Document};
use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Command, Output},
    sync::LazyLock,
};
use tempfile::TempDir;

/// Programs that only transform text. They are not replaced.
const FILTERS: [&str; 6] = ["awk", "cat", "grep", "head", "sed", "tail"];
/// Programs and scripts that are replaced. A document with another program fails the test.
const REPLACED: [&str; 14] = [
    "acr-pull-webhook",
    "az",
    "cosign",
    "curl",
    "gh",
    "helm",
    "jq",
    "kubectl",
    "ln",
    "make",
    "sha256sum",
    "skopeo",
    "velero",
    "openssl",
];
const SCRIPTS: [&str; 2] = ["certs/make-certs.sh", "deploy/crds.sh"];

/// A stand-in: it writes its words to a file of its own, and prints one word.
const STAND_IN: &str = "#!/bin/bash\n\
    printf '%s\\0' \"$PLACE\" \"${0##*/}\" \"$@\" >\"$CALLS/$$\"\n\
    printf 'value\\n'\n";

/// A call of a program.
#[derive(Clone, Debug)]
pub struct Call {
    /// The document and the line of the block, such as `README.md:80`.
    pub place: String,
    pub program: String,
    pub arguments: Vec<String>,
}

/// The shell documents: README, and the pages of the book.
pub fn documents() -> Vec<Document> {
    let all = documents::markdown::all().unwrap();
    let shown = all
        .into_iter()
        .filter(|document| document.path.starts_with("docs") || document.path == Path::new("README.md"));
    shown.collect()
}

/// The calls of all documents. Blocks of a document share a shell, so that later ones see the variables of earlier ones.
pub fn calls() -> &'static [Call] {
    static CALLS: LazyLock<Vec<Call>> =
        LazyLock::new(|| documents().iter().flat_map(calls_of_document).collect());
    &CALLS
}

fn calls_of_document(document: &Document) -> Vec<Call> {
    let mut script =
        "command_not_found_handle() { echo \"$PLACE: no stand-in for $1\" >&2; return 127; }\n".to_owned();
    for block in &document.blocks {
        let commands = match block.language.as_str() {
            "bash" | "sh" => vec![block.text.clone()],
            "console" => console_commands(block, &document.path),
            _ => continue,
        };
        let place = format!("{}:{}", document.path.display(), block.line);
        script += &format!("export PLACE={place}\n");
        for command in commands {
            script += &format!("{command}\n");
        }
    }
    run(&script)
}

/// The commands of a block with prompts. A command goes on in the next line until the shell can parse it; other lines
/// are output.
fn console_commands(block: &Block, document: &Path) -> Vec<String> {
    let mut commands = Vec::new();
    let mut lines = block.text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(first) = line.strip_prefix("$ ") else {
            continue;
        };
        let mut command = first.to_owned();
        while command.ends_with('\\') || !can_parse(&command) {
            let next = lines.next_if(|line| !line.starts_with("$ "));
            let next =
                next.unwrap_or_else(|| panic!("{}: the shell cannot parse: {command}", document.display()));
            command += &format!("\n{next}");
        }
        commands.push(command);
    }
    commands
}

fn can_parse(command: &str) -> bool {
    let parsed = Command::new("bash").args(["-n", "-c", command]).output().unwrap();
    parsed.status.success()
}

/// Runs a script with the stand-ins.
fn run(script: &str) -> Vec<Call> {
    let folder = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    let calls = folder.path().join("calls");
    let programs = folder.path().join("programs");
    let work = folder.path().join("work");
    for new in [&calls, &programs, &work] {
        fs::create_dir(new).unwrap();
    }
    for name in REPLACED {
        write_stand_in(&programs.join(name));
    }
    for name in SCRIPTS {
        fs::create_dir_all(work.join(name).parent().unwrap()).unwrap();
        write_stand_in(&work.join(name));
    }
    for name in FILTERS {
        symlink(find_program(name), programs.join(name)).unwrap();
    }
    symlink(repository("examples"), work.join("examples")).unwrap();
    let output = Command::new(find_program("bash"))
        .args(["--noprofile", "--norc", "-c", script])
        .current_dir(&work)
        .env_clear()
        .env("PATH", &programs)
        .env("CALLS", &calls)
        .output()
        .unwrap();
    assert_complete(&output);
    let mut found = Vec::new();
    for file in fs::read_dir(&calls).unwrap() {
        found.push(read_call(&fs::read(file.unwrap().path()).unwrap()));
    }
    found
}

/// The shell reports unknown programs, syntax errors and missing files on its standard error.
fn assert_complete(output: &Output) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.is_empty(), "the commands of a document do not run: {error}");
}

fn read_call(record: &[u8]) -> Call {
    let text = std::str::from_utf8(record).unwrap();
    let mut words = text.strip_suffix('\0').unwrap().split('\0').map(str::to_owned);
    Call {
        place: words.next().unwrap(),
        program: words.next().unwrap(),
        arguments: words.collect(),
    }
}

fn write_stand_in(file: &Path) {
    fs::write(file, STAND_IN).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}

fn find_program(name: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(AsRef::<OsStr>::as_ref(&path));
    folders
        .find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
        .unwrap_or_else(|| panic!("{name} is missing in PATH"))
}
