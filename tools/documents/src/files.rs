//! The files that are generated from the program.

use crate::{DocumentError, crds, flags, metrics, picture, quick_start, reasons, repository, resources};
use std::fs;

/// A generated file.
#[derive(Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// The path in the repository.
    pub path: String,
    /// The content.
    pub content: String,
}

impl GeneratedFile {
    /// A file with this content.
    pub fn new(path: impl Into<String>, content: String) -> Self {
        Self {
            path: path.into(),
            content,
        }
    }
}

/// All generated files, as they must be.
pub fn generated() -> Result<Vec<GeneratedFile>, DocumentError> {
    let mut files = vec![
        GeneratedFile::new("docs/flags.md", flags::page()),
        GeneratedFile::new("docs/metrics.md", metrics::page()?),
        GeneratedFile::new("docs/crds.md", resources::page()?),
        GeneratedFile::new("docs/reasons.md", reasons::page()?),
        GeneratedFile::new("docs/quick-start.md", quick_start::page()?),
        GeneratedFile::new("docs/how-it-works.svg", picture::svg()),
    ];
    files.extend(crds::manifests()?);
    Ok(files)
}

/// Writes the files to the repository.
pub fn write(files: &[GeneratedFile]) -> Result<(), DocumentError> {
    for GeneratedFile { path, content } in files {
        let path = repository(path);
        fs::write(&path, content).map_err(DocumentError::file(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_files_match_the_program() {
        for GeneratedFile { path, content } in generated().unwrap() {
            let found = fs::read_to_string(repository(&path)).unwrap_or_default();
            assert!(
                found == content,
                "{path} does not match the program: run `make generate` and review the diff"
            );
        }
    }
}
