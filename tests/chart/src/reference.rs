//! The reference of the values: the README of the chart, and the descriptions in the schema. Both are generated from the
//! comments in `values.yaml`.

use crate::repository;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// A value with its comment.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The keys from the outermost to the innermost.
    pub path: Vec<String>,
    /// The text of the comment. Consecutive values without a blank line or a comment between them share one.
    pub comment: String,
    /// The heading above the value.
    pub section: String,
}

impl Entry {
    /// The path as `--set` has it.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

/// A file of the chart.
pub fn file(name: &str) -> PathBuf {
    repository("deploy/chart").join(name)
}

/// The README and the schema as they should be.
pub fn generated() -> [(PathBuf, String); 2] {
    let read = |name: &str| std::fs::read_to_string(file(name)).unwrap();
    let values = read("values.yaml");
    let entries = entries(&values);
    let defaults: Value = serde_saphyr::from_str(&values).unwrap();
    let mut schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    describe(&mut schema, &entries);
    [
        (file("README.md"), readme(&entries, &defaults)),
        (
            file("values.schema.json"),
            serde_json::to_string_pretty(&schema).unwrap() + "\n",
        ),
    ]
}

/// The values in the text of `values.yaml`, in their order.
pub fn entries(yaml: &str) -> Vec<Entry> {
    let mut reader = Reader::default();
    for line in yaml.lines() {
        reader.read(line);
    }
    reader.entries
}

#[derive(Default)]
struct Reader {
    entries: Vec<Entry>,
    path: Vec<(usize, String)>,
    section: String,
    comment: Vec<String>,
    /// The comment of the value before, and its indentation, for a value that follows it immediately.
    previous: Option<(usize, String)>,
}

impl Reader {
    fn read(&mut self, line: &str) {
        let text = line.trim_start();
        let indentation = line.len() - text.len();
        if let Some(comment) = text.strip_prefix('#') {
            match comment.trim().strip_suffix("---") {
                Some(heading) => self.section = heading.trim_end_matches('-').trim().to_owned(),
                None => self.comment.push(comment.trim().to_owned()),
            }
        } else if text.is_empty() {
            self.comment.clear();
            self.previous = None;
        } else if let Some((key, _)) = text.split_once(':').filter(|(key, _)| is_key(key)) {
            self.add(indentation, key);
        }
    }

    fn add(&mut self, indentation: usize, key: &str) {
        self.path.retain(|(outer, _)| *outer < indentation);
        self.path.push((indentation, key.to_owned()));
        let own = std::mem::take(&mut self.comment).join(" ");
        let shared = self.previous.take().filter(|(before, _)| *before == indentation);
        let comment = match own.is_empty() {
            true => shared.map(|(_, comment)| comment).unwrap_or_default(),
            false => own,
        };
        self.previous = Some((indentation, comment.clone()));
        self.entries.push(Entry {
            path: self.path.iter().map(|(_, key)| key.clone()).collect(),
            comment,
            section: self.section.clone(),
        });
    }
}

/// Items of lists are not keys.
fn is_key(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_ascii_alphanumeric() || "._/-".contains(c))
        && !text.starts_with('-')
}

/// Sets the description of each property.
fn describe(schema: &mut Value, entries: &[Entry]) {
    for entry in entries.iter().filter(|entry| !entry.comment.is_empty()) {
        let pointer: String = entry
            .path
            .iter()
            .map(|key| format!("/properties/{}", key.replace('/', "~1")))
            .collect();
        if let Some(property) = schema.pointer_mut(&pointer) {
            property["description"] = json!(entry.comment);
        }
    }
}

fn readme(entries: &[Entry], defaults: &Value) -> String {
    let mut text = include_str!("readme.md").to_owned();
    let mut section = None;
    for entry in entries {
        let default = entry.path.iter().fold(defaults, |value, key| &value[key]);
        let is_group = default.as_object().is_some_and(|object| !object.is_empty());
        if is_group && entry.comment.is_empty() {
            continue;
        }
        // The defaults of Kubernetes' own structures are one value.
        if entry.path.len() > 1 && is_inside_structure(entry, entries) {
            continue;
        }
        if section != Some(&entry.section) {
            section = Some(&entry.section);
            let title = if entry.section.is_empty() {
                "Image and names"
            } else {
                &entry.section
            };
            text += &format!("\n### {title}\n\n| value | default | meaning |\n|---|---|---|\n");
        }
        let default = if is_group && !is_structure(&entry.name()) {
            String::new()
        } else {
            format!("`{default}`")
        };
        let comment = entry.comment.replace('|', "\\|");
        text += &format!("| `{}` | {default} | {comment} |\n", entry.name());
    }
    text
}

/// Values that have the form of a structure of Kubernetes. Their fields are not values of the chart.
fn is_structure(name: &str) -> bool {
    const STRUCTURES: [&str; 8] = [
        "dnsConfig",
        "grafanaDashboard.labels",
        "livenessProbe",
        "nodeSelector",
        "podSecurityContext",
        "readinessProbe",
        "resources",
        "securityContext",
    ];
    STRUCTURES.contains(&name)
}

fn is_inside_structure(entry: &Entry, entries: &[Entry]) -> bool {
    let outer = |other: &&Entry| entry.path.len() > other.path.len() && entry.path.starts_with(&other.path);
    entries
        .iter()
        .filter(outer)
        .any(|other| is_structure(&other.name()))
}

/// The paths of all values of the schema that have no properties themselves.
pub fn leaves(schema: &Value) -> Vec<String> {
    fn add(prefix: &str, properties: &Map<String, Value>, found: &mut Vec<String>) {
        for (key, property) in properties {
            let path = if prefix.is_empty() {
                key.clone()
            } else {
                format!("{prefix}.{key}")
            };
            match property.get("properties").and_then(Value::as_object) {
                Some(inner) => add(&path, inner, found),
                None => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    add("", schema["properties"].as_object().unwrap(), &mut found);
    found
}
