//! The clone of the repository in which a test runs.

use std::{
    env,
    path::{Path, PathBuf},
    sync::LazyLock,
};

/// The root of the repository. It is found at run time: with a target folder that several clones share, cargo runs a
/// program that was compiled in another clone.
pub fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let folder = env::current_dir().unwrap();
        let mut folders = folder.ancestors();
        let root = folders.find(|folder| folder.join("tests/testkit").is_dir());
        root.unwrap_or_else(|| panic!("{} is not in the repository: run tests there", folder.display()))
            .to_owned()
    });
    &ROOT
}
