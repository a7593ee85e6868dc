//! Writes the files that are generated from the program, and checks the documents.
//!
//! `files` lists the generated files: the pages of `flags`, `metrics`, `resources` and `reasons`, which describe the program,
//! the `quick_start` of the README, the `picture`, and the `crds`. `markdown` reads documents, and `book` checks the
//! rendered book.

pub mod book;
pub mod crds;
pub mod files;
pub mod flags;
pub mod markdown;
pub mod metrics;
pub mod picture;
pub mod quick_start;
pub mod reasons;
pub mod resources;
mod text;

use std::{
    env,
    path::{Path, PathBuf},
};

/// A document or a page cannot be generated or checked.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A text does not agree with the program, or a link does not work.
    #[error("{0}")]
    Wrong(String),
}

impl DocumentError {
    /// The error about this file.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        |source| Self::File { path, source }
    }
}

/// The absolute path of a file in this repository, which is the one of the current folder.
pub fn repository(path: impl AsRef<Path>) -> PathBuf {
    let folder = env::current_dir().unwrap_or_default();
    let root = folder
        .ancestors()
        .find(|folder| folder.join("tools/documents").is_dir());
    root.unwrap_or(&folder).join(path)
}
