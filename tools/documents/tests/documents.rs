//! The documents of the repository: links, anchors, and the paths that they mention.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use documents::{
    markdown::{self, Document},
    repository,
};
use std::collections::BTreeMap;

/// Folders whose files documents name by their path in the repository.
const FOLDERS: [&str; 8] = [
    "bench", "certs", "deploy", "docs", "examples", "src", "tests", "tools",
];

#[test]
fn every_link_within_the_repository_leads_to_a_file_and_an_anchor() {
    let documents = markdown::all().unwrap();
    let anchors: BTreeMap<_, _> = documents.iter().map(|d| (d.path.clone(), &d.anchors)).collect();
    let mut faults = Vec::new();
    for Document { path, links, .. } in &documents {
        for link in links.iter().filter(|link| !link.contains(':')) {
            let (target, anchor) = markdown::target(path, link);
            if !repository(&target).exists() {
                faults.push(format!("{}: {link}: there is no such file", path.display()));
            }
            if let (Some(anchor), Some(known)) = (anchor, anchors.get(&target))
                && !known.contains(&anchor)
            {
                faults.push(format!("{}: {link}: there is no such heading", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// mdBook renders only what is in `docs`, so a link to another folder would be dead in the book.
#[test]
fn pages_of_the_book_link_only_to_pages_of_the_book() {
    for Document { path, links, .. } in markdown::all().unwrap() {
        if !path.starts_with("docs") {
            continue;
        }
        for link in links.iter().filter(|link| !link.contains(':')) {
            let (target, _) = markdown::target(&path, link);
            assert!(
                target.starts_with("docs"),
                "{}: {link} leads out of the book",
                path.display()
            );
        }
    }
}

#[test]
fn every_page_is_in_the_summary_of_the_book() {
    let summary = Document::read("docs/SUMMARY.md").unwrap();
    for Document { path, .. } in markdown::all().unwrap() {
        let Ok(page) = path.strip_prefix("docs") else {
            continue;
        };
        let page = page.to_string_lossy();
        assert!(
            page == "SUMMARY.md" || summary.links.iter().any(|link| *link == page),
            "docs/SUMMARY.md does not list {page}"
        );
    }
}

#[test]
fn every_path_that_a_document_mentions_exists() {
    let mut faults = Vec::new();
    for Document { path, code, .. } in markdown::all().unwrap() {
        for mentioned in code.iter().filter(|code| is_path(code)) {
            let here = path.parent().unwrap().join(mentioned);
            if !repository(mentioned).exists() && !repository(here).exists() {
                faults.push(format!("{}: {mentioned}", path.display()));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "documents mention files that do not exist:\n{}",
        faults.join("\n")
    );
}

/// Whether inline code is a path of the repository, without placeholders.
fn is_path(code: &str) -> bool {
    let known = code
        .split_once('/')
        .is_some_and(|(folder, _)| FOLDERS.contains(&folder));
    known
        && code
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/._-".contains(&b))
}
