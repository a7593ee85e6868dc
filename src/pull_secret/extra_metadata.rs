//! Labels and annotations that the installer adds to pull Secrets and `ACRPullSecret`s, for example because a policy of
//! the cluster demands them.
//!
//! Source of the grammar:
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set>.

use crate::{kubernetes, names::ObjectName, start_error::StartError};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// The annotation of an `ACRPullSecret` with the hash of the labels and annotations that it was written with. A renewal
/// writes the object only if the hash differs.
const HASH_ANNOTATION: &str = "acr-pull.dev/extra-metadata";
/// The maximum number of labels, and of annotations.
const MAX_ENTRIES: usize = 16;
/// The maximum length of the name in a key and of the value of a label.
const MAX_LABEL_LENGTH: usize = 63;
/// The maximum length of the value of an annotation. Every Secret has it.
const MAX_ANNOTATION_LENGTH: usize = 1024;
/// The domains whose labels and annotations have a meaning for Kubernetes or for this program.
const RESERVED_DOMAINS: [&str; 3] = ["acr-pull.dev", "kubernetes.io", "k8s.io"];

/// Labels and annotations for every pull Secret and `ACRPullSecret`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraMetadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl ExtraMetadata {
    /// Parses the values of the flags, each of which is KEY=VALUE.
    pub fn parse(labels: &[String], annotations: &[String]) -> Result<Self, StartError> {
        let is_annotation =
            |value: &str| value.len() <= MAX_ANNOTATION_LENGTH && !value.contains(|c: char| c.is_control());
        Ok(Self {
            labels: parse(
                "--pull-secret-labels",
                labels,
                "63 letters, digits, '-', '_' or '.'",
                |value| value.is_empty() || is_qualified_name(value),
            )?,
            annotations: parse(
                "--pull-secret-annotations",
                annotations,
                "1024 bytes without control characters",
                is_annotation,
            )?,
        })
    }

    /// The labels of a pull Secret or `ACRPullSecret`.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(kubernetes::managed_by_label());
        labels
    }

    /// The annotations of a pull Secret.
    pub fn annotations(&self) -> Option<BTreeMap<String, String>> {
        (!self.annotations.is_empty()).then(|| self.annotations.clone())
    }

    /// The annotations of an `ACRPullSecret`.
    pub fn owner_annotations(&self) -> Option<BTreeMap<String, String>> {
        let mut annotations = self.annotations.clone();
        annotations.extend(Some((HASH_ANNOTATION.to_owned(), self.hash()?)));
        Some(annotations)
    }

    /// Whether an `ACRPullSecret` with these annotations was written with these labels and annotations.
    pub fn is_current(&self, annotations: Option<&BTreeMap<String, String>>) -> bool {
        annotations.and_then(|all| all.get(HASH_ANNOTATION)) == self.hash().as_ref()
    }

    /// The hash of the labels and annotations, if there are any.
    fn hash(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let mut hash = Sha256::new();
        for entries in [&self.labels, &self.annotations] {
            for text in entries.iter().flat_map(|(key, value)| [key, value]) {
                // No text contains a zero byte.
                hash.update(text);
                hash.update([0]);
            }
            hash.update([0]);
        }
        Some(HEXLOWER.encode(&hash.finalize()[..8]))
    }
}

fn parse(
    flag: &str,
    entries: &[String],
    value_grammar: &str,
    is_value: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, String>, StartError> {
    let mut parsed = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !entry.is_empty()) {
        let invalid = |why: String| StartError::Flag(format!("{flag}: {entry:?} {why}"));
        let (key, value) = entry
            .split_once('=')
            .ok_or_else(|| invalid("is not KEY=VALUE".to_owned()))?;
        if !is_key(key) {
            return Err(invalid(format!("has no valid key: {key:?} is not [DOMAIN/]NAME")));
        }
        if let Some(domain) = reserved_domain(key) {
            return Err(invalid(format!(
                "has a reserved key: use a key outside of {domain}"
            )));
        }
        if !is_value(value) {
            return Err(invalid(format!(
                "has an invalid value: use at most {value_grammar}"
            )));
        }
        if parsed.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(invalid("repeats a key".to_owned()));
        }
    }
    if parsed.len() > MAX_ENTRIES {
        let message = format!("{flag}: {} entries are more than {MAX_ENTRIES}", parsed.len());
        return Err(StartError::Flag(message));
    }
    Ok(parsed)
}

/// Whether this is a key of a label or annotation.
fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((domain, name)) => ObjectName::new(domain).is_some() && is_qualified_name(name),
        None => is_qualified_name(key),
    }
}

/// The name in a key or the value of a label.
fn is_qualified_name(text: &str) -> bool {
    let is_end = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= MAX_LABEL_LENGTH
        && is_end(text.chars().next())
        && is_end(text.chars().next_back())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn reserved_domain(key: &str) -> Option<&'static str> {
    let (domain, _) = key.split_once('/')?;
    RESERVED_DOMAINS.into_iter().find(|reserved| {
        let parent = domain.strip_suffix(reserved);
        parent.is_some_and(|parent| parent.is_empty() || parent.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(labels: &[&str], annotations: &[&str]) -> String {
        let owned = |all: &[&str]| all.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
        match ExtraMetadata::parse(&owned(labels), &owned(annotations)) {
            Err(StartError::Flag(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn labels_and_annotations_follow_the_grammar_of_kubernetes() {
        let labels = [
            "team=a",
            "example.com/cost-centre=4_2.x",
            "notkubernetes.io/x=",
            "",
        ]
        .map(str::to_owned);
        let annotations = ["example.com/owner=Team A <a@example.com>; x=y".to_owned()];
        let extra = ExtraMetadata::parse(&labels, &annotations).unwrap();
        let found: Vec<_> = extra.labels().into_iter().collect();
        let text = |(key, value): &(String, String)| format!("{key}={value}");
        assert_eq!(
            found.iter().map(text).collect::<Vec<_>>(),
            [
                "app.kubernetes.io/managed-by=acr-pull-webhook",
                "example.com/cost-centre=4_2.x",
                "notkubernetes.io/x=",
                "team=a",
            ]
        );
        let value = &extra.annotations().unwrap()["example.com/owner"];
        assert_eq!(value, "Team A <a@example.com>; x=y");
        let long = format!("a={}", "x".repeat(64));
        for bad in [
            "team",
            "=a",
            "te am=a",
            "Example.com/x=a",
            "a/b/c=d",
            "team=-a",
            "team=a b",
            "-x=a",
            &long,
        ] {
            assert!(
                refusal(&[bad], &[]).starts_with("--pull-secret-labels: "),
                "{bad}"
            );
        }
        let long = format!("a={}", "x".repeat(1025));
        for bad in ["a=b\nc", "a", &long] {
            assert!(
                refusal(&[], &[bad]).starts_with("--pull-secret-annotations: "),
                "{bad}"
            );
        }
        assert!(refusal(&["a=b", "a=c"], &[]).ends_with("repeats a key"));
        let many: Vec<_> = (0..17).map(|n| format!("l{n}=x")).collect();
        assert!(ExtraMetadata::parse(&many[1..], &many[1..]).is_ok());
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(
            refusal(&[], &many),
            "--pull-secret-annotations: 17 entries are more than 16"
        );
    }

    #[test]
    fn keys_of_kubernetes_and_of_the_webhook_are_refused() {
        for domain in ["acr-pull.dev", "kubernetes.io", "k8s.io"] {
            for key in [format!("{domain}/x=a"), format!("app.{domain}/x=a")] {
                let message = format!(
                    "--pull-secret-labels: {key:?} has a reserved key: use a key outside of {domain}"
                );
                assert_eq!(refusal(&[&key], &[]), message);
                assert!(refusal(&[], &[&key]).contains("reserved key"));
            }
        }
    }

    #[test]
    fn an_object_is_current_only_with_the_same_labels_and_annotations() {
        let parse = |labels: &[&str], annotations: &[&str]| {
            let owned = |all: &[&str]| all.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>();
            ExtraMetadata::parse(&owned(labels), &owned(annotations)).unwrap()
        };
        let all = [
            parse(&[], &[]),
            parse(&["a=b"], &[]),
            parse(&[], &["a=b"]),
            parse(&["a=c"], &[]),
        ];
        for (n, one) in all.iter().enumerate() {
            for (m, other) in all.iter().enumerate() {
                let annotations = other.owner_annotations();
                assert_eq!(one.is_current(annotations.as_ref()), n == m, "{one:?} {other:?}");
            }
        }
        assert!(all[0].is_current(Some(&BTreeMap::new())));
    }
}
