//! The page of the quick start, with the commands of the README.

use crate::{DocumentError, text};

const README: &str = include_str!("../../../README.md");
const START: &str = "<!-- quick start: make generate copies it to docs/quick-start.md -->\n";
const END: &str = "<!-- end of the quick start -->";

/// `docs/quick-start.md`.
pub fn page() -> Result<String, DocumentError> {
    let after = README.split_once(START).map(|(_, after)| after);
    let commands = after
        .and_then(|after| after.split_once(END))
        .map(|(commands, _)| commands);
    let missing = || DocumentError::Wrong(format!("README.md has no part between {START:?} and {END:?}"));
    let commands = commands.ok_or_else(missing)?;
    Ok(text::page(include_str!("../texts/quick-start.md"), commands))
}
