//! The rendered book.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use documents::{book, repository};
use std::process::Command;
use testkit::programs::built_by;

#[test]
fn the_book_builds_without_dead_links_and_with_an_anchor_for_each_reason() {
    let folder = tempfile::TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    let mut build = Command::new(built_by("tools/mdbook.sh"));
    let build = build
        .arg("build")
        .arg(repository(""))
        .arg("--dest-dir")
        .arg(folder.path())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&build.stderr);
    assert!(build.status.success() && !log.contains("WARN"), "{log}");
    let checked = book::check(folder.path()).unwrap_or_else(|error| panic!("{error}"));
    assert!(checked.pages > 20 && checked.links > 500, "{checked:?}");
}
