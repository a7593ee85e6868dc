//! Reads Markdown documents: code blocks, links, headings, and the paths that they mention.

use crate::{DocumentError, repository};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file of the repository.
#[derive(Debug)]
pub struct Document {
    /// The path in the repository.
    pub path: PathBuf,
    /// The fenced code blocks.
    pub blocks: Vec<Block>,
    /// The destinations of links and images.
    pub links: Vec<String>,
    /// The anchors of the headings.
    pub anchors: Vec<String>,
    /// The inline code.
    pub code: Vec<String>,
}

/// A fenced code block.
#[derive(Debug)]
pub struct Block {
    /// The language after the fence.
    pub language: String,
    /// The text.
    pub text: String,
    /// The line of its first line in the file.
    pub line: usize,
}

impl Document {
    /// Reads a file of the repository.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, DocumentError> {
        let path = path.into();
        let file = repository(&path);
        let text = fs::read_to_string(&file).map_err(DocumentError::file(file))?;
        Ok(Self::parse(path, &text))
    }

    fn parse(path: PathBuf, text: &str) -> Self {
        let mut document = Self {
            path,
            blocks: Vec::new(),
            links: Vec::new(),
            anchors: Vec::new(),
            code: Vec::new(),
        };
        let mut heading: Option<String> = None;
        let mut in_block = false;
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                    in_block = true;
                    let line = text.get(..range.start).unwrap_or_default().matches('\n').count() + 2;
                    document.blocks.push(Block {
                        language: language.into_string(),
                        text: String::new(),
                        line,
                    });
                }
                Event::End(TagEnd::CodeBlock) => in_block = false,
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    document.links.push(dest_url.into_string());
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    document
                        .anchors
                        .extend(heading.take().map(|heading| anchor(&heading)));
                }
                Event::Text(part) if in_block => {
                    if let Some(block) = document.blocks.last_mut() {
                        block.text += &part;
                    }
                }
                Event::Text(part) => {
                    if let Some(heading) = &mut heading {
                        *heading += &part;
                    }
                }
                Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        *heading += &part;
                    }
                    document.code.push(part.into_string());
                }
                _ => {}
            }
        }
        document
    }
}

/// The anchor that GitHub and mdBook give to a heading.
pub fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase)
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// All Markdown files of the repository. Build results, Git's folder, and the texts of generated pages are omitted.
pub fn all() -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let absolute = repository(&folder);
        for entry in fs::read_dir(&absolute).map_err(DocumentError::file(&absolute))? {
            let entry = entry.map_err(DocumentError::file(&absolute))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            match entry.file_type().map_err(DocumentError::file(&absolute))? {
                kind if kind.is_dir() && !["target", ".git", "texts"].contains(&&*name) => folders.push(path),
                kind if kind.is_file() && name.ends_with(".md") => documents.push(Document::read(path)?),
                _ => {}
            }
        }
    }
    documents.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(documents)
}

/// The path in the repository to which a link of this document leads, and the anchor there.
pub fn target(document: &Path, link: &str) -> (PathBuf, Option<String>) {
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor.to_owned())),
        None => (link, None),
    };
    let mut path = match file {
        "" => document.to_path_buf(),
        _ => document.parent().unwrap_or(Path::new("")).to_path_buf(),
    };
    for part in Path::new(file).components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            other => path.push(other),
        }
    }
    (path, anchor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_its_blocks_links_anchors_and_code() {
        let text = "# A `b` C\n\n1. x\n\n   ```console\n   $ echo\n   ```\n\n[l](a.md#x) `src/a.rs`\n";
        let document = Document::parse("docs/x.md".into(), text);
        assert_eq!(document.anchors, ["a-b-c"]);
        assert_eq!(document.links, ["a.md#x"]);
        assert_eq!(document.code, ["b", "src/a.rs"]);
        let [block] = &document.blocks[..] else {
            panic!("{document:?}")
        };
        assert_eq!(
            (&*block.language, &*block.text, block.line),
            ("console", "$ echo\n", 6)
        );
        assert_eq!(
            target(Path::new("docs/x.md"), "../a/b.md#c"),
            ("a/b.md".into(), Some("c".to_owned()))
        );
        assert_eq!(
            target(Path::new("docs/x.md"), "#c"),
            ("docs/x.md".into(), Some("c".to_owned()))
        );
    }
}
