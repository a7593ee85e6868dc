//! Checks the links and anchors of the rendered book.

use crate::DocumentError;
use acr_pull_webhook::Reason;
use html5gum::{Token, Tokenizer};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The address under which the book is published. Messages of the program link to it.
const ADDRESS: &str = "https://acr-pull.dev/";

/// What was checked.
#[derive(Debug)]
pub struct Checked {
    /// The number of pages.
    pub pages: usize,
    /// The number of links within the book.
    pub links: usize,
}

/// The anchors and links of a page.
#[derive(Debug, Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
}

/// Checks that every link of the book leads to a page and an anchor of the book, and that every reason has an anchor.
pub fn check(folder: &Path) -> Result<Checked, DocumentError> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(DocumentError::file(folder))? {
        let path = entry.map_err(DocumentError::file(folder))?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // The links of 404.html are relative to the published address.
        if name.ends_with(".html") && name != "404.html" {
            let html = fs::read_to_string(&path).map_err(DocumentError::file(&path))?;
            pages.insert(name, Page::parse(&html));
        }
    }
    let mut faults = missing_reasons(&pages);
    let mut links = 0;
    for (name, page) in &pages {
        for link in page.links.iter().filter_map(|link| within_book(link)) {
            links += 1;
            faults.extend(fault(folder, &pages, name, link).map(|fault| format!("{name}: {link}: {fault}")));
        }
    }
    match faults.is_empty() {
        true => Ok(Checked {
            pages: pages.len(),
            links,
        }),
        false => Err(DocumentError::Wrong(faults.join("\n"))),
    }
}

impl Page {
    fn parse(html: &str) -> Self {
        let mut page = Self::default();
        for token in Tokenizer::new(html) {
            let Ok(Token::StartTag(tag)) = token else { continue };
            for (key, value) in &tag.attributes {
                let value = String::from_utf8_lossy(value).into_owned();
                match &***key {
                    b"id" => drop(page.anchors.insert(value)),
                    b"href" | b"src" => page.links.push(value),
                    _ => {}
                }
            }
        }
        page
    }
}

/// The part of a link after the address of the book; `None` for links that lead elsewhere.
fn within_book(link: &str) -> Option<&str> {
    match link.strip_prefix(ADDRESS) {
        Some(rest) => Some(rest),
        None => (!link.contains(':') && !link.starts_with("//")).then_some(link),
    }
}

/// What is wrong with a link of a page.
fn fault(folder: &Path, pages: &BTreeMap<String, Page>, page: &str, link: &str) -> Option<&'static str> {
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let file = match file {
        "" => page,
        file => file,
    };
    match pages.get(file) {
        Some(page) if anchor.is_empty() || page.anchors.contains(anchor) => None,
        Some(_) => Some("the page has no such anchor"),
        None if folder.join(file).is_file() => None,
        None => Some("the book has no such file"),
    }
}

/// The reasons to whose anchor a message would link in vain.
fn missing_reasons(pages: &BTreeMap<String, Page>) -> Vec<String> {
    let anchors = pages.get("reasons.html").map(|page| &page.anchors);
    let reasons = Reason::ALL.iter().map(|reason| reason.as_str());
    let missing = reasons.filter(|reason| anchors.is_none_or(|all| !all.contains(&reason.to_lowercase())));
    missing
        .map(|reason| format!("reasons.html has no anchor for {reason}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_missing_anchors_and_missing_reasons_are_faults() {
        let mut pages = BTreeMap::new();
        let html = "<h2 id=\"here\">x</h2><a href=\"b.html#there\">x</a><img src='c.svg'>\
                    <a href=\"https://acr-pull.dev/a.html#here\"></a><a href=\"https://example.com\">";
        pages.insert("a.html".to_owned(), Page::parse(html));
        pages.insert("b.html".to_owned(), Page::default());
        let folder = Path::new("/nonexistent");
        let faults: Vec<_> = pages["a.html"]
            .links
            .iter()
            .filter_map(|link| within_book(link))
            .map(|link| fault(folder, &pages, "a.html", link))
            .collect();
        assert_eq!(
            faults,
            [
                Some("the page has no such anchor"),
                Some("the book has no such file"),
                None
            ]
        );
        assert_eq!(missing_reasons(&pages).len(), Reason::ALL.len());
        let ids: String = Reason::ALL
            .iter()
            .map(|r| format!("<h2 id='{}'>", r.as_str().to_lowercase()))
            .collect();
        pages.insert("reasons.html".to_owned(), Page::parse(&ids));
        assert_eq!(missing_reasons(&pages), [""; 0]);
    }
}
