//! The page of the quick start, with the commands of the README.

use crate::{DocumentError, text};

const README: &str = include_str!("../../../README.md");
const START: &str = "<!-- quick start: make generate copies it to docs/quick-start.md -->\n";
const END: &str = "<!-- end of the quick start -->";

/// `docs/quick-start.md`.
pub fn page() -> Result<String, DocumentError> {
    Ok(text::page(include_str!("../texts/quick-start.md"), part()?))
}

/// The commands of the quick start.
pub fn commands() -> Result<&'static str, DocumentError> {
    let commands = part()?.trim().strip_prefix("```bash\n");
    commands
        .and_then(|commands| commands.strip_suffix("\n```"))
        .ok_or_else(|| {
            DocumentError::Wrong("the quick start of README.md is not one block of bash".to_owned())
        })
}

fn part() -> Result<&'static str, DocumentError> {
    let after = README.split_once(START).map(|(_, after)| after);
    let part = after
        .and_then(|after| after.split_once(END))
        .map(|(part, _)| part);
    let missing = || DocumentError::Wrong(format!("README.md has no part between {START:?} and {END:?}"));
    part.ok_or_else(missing)
}
