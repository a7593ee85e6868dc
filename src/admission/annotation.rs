//! Parses references to generators in the annotation of a Pod and in the label of a Namespace. The two grammars differ,
//! because the value of a label cannot contain `/` or `,`.

use crate::{
    generator::{DEFAULT_GENERATOR_LABEL, DEFAULT_MODE_LABEL},
    names::ObjectName,
    problem::{Problem, Reason},
    reference::{Kind, Reference},
    untrusted::UntrustedText,
};

/// The annotation of a Pod that references its generators.
pub const ACCESS_TOKEN_ANNOTATION: &str = "acr-pull.dev/access-token";
/// The value of the annotation or the label that requests no pull secret.
const OPT_OUT: &str = "none";
/// The maximum number of references. Each needs a token of its own, and all tokens are requested concurrently.
pub const MAX_REFERENCES: usize = 16;

/// The maximum length of an invalid part in a message.
const MAX_SHOWN_BYTES: usize = 48;

/// The references in the annotation of a Pod, without duplicates, in their order.
pub fn parse_references(annotation: &str) -> Result<Vec<Reference>, Problem> {
    if annotation.trim() == OPT_OUT {
        return Ok(Vec::new());
    }
    let mut references = Vec::new();
    for (index, item) in annotation.split(',').enumerate() {
        if index == MAX_REFERENCES {
            let why = format!("it references more than {MAX_REFERENCES} generators");
            return Err(invalid(annotation, &why));
        }
        let reference = parse_reference(item.trim(), '/').map_err(|why| invalid(annotation, &why))?;
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    Ok(references)
}

/// The reference in the label of a Namespace, unless it is `none`.
pub fn parse_default_reference(label: &str) -> Result<Option<Reference>, Problem> {
    if label == OPT_OUT {
        return Ok(None);
    }
    parse_reference(label, '.').map(Some).map_err(|why| {
        let fact = format!("label {DEFAULT_GENERATOR_LABEL} of the Namespace: {why}");
        Problem::new(Reason::InvalidAnnotation, fact).quoting(label)
    })
}

/// What the default generator of a Namespace does for its Pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They get the pull secret.
    Enforce,
    /// Their creators get a warning.
    Audit,
}

impl Mode {
    /// The mode in the label of a Namespace, if it has the label.
    pub fn parse(label: Option<&str>) -> Result<Self, Problem> {
        match label {
            None | Some("enforce") => Ok(Self::Enforce),
            Some("audit") => Ok(Self::Audit),
            Some(other) => Err(Problem::new(
                Reason::InvalidAnnotation,
                format!(
                    "label {DEFAULT_MODE_LABEL} of the Namespace is {}: set it to audit or enforce, or remove it",
                    UntrustedText::quoted(other).at_most(MAX_SHOWN_BYTES)
                ),
            )),
        }
    }
}

/// Parses a reference with `separator` between kind and name. The separator `.` is unambiguous, because kinds start
/// with an upper-case letter and names do not.
fn parse_reference(item: &str, separator: char) -> Result<Reference, String> {
    let is_kind = |kind: &str| separator == '/' || kind.starts_with(|c: char| c.is_ascii_uppercase());
    let (kind, name) = match item.split_once(separator).filter(|(kind, _)| is_kind(kind)) {
        None => (Kind::AccessToken, item),
        Some((kind, name)) if kind == Kind::ClusterGenerator.as_str() => (Kind::ClusterGenerator, name),
        Some((kind, name)) => return Err(unsupported_kind(kind, name)),
    };
    if name.is_empty() {
        return Err("a name is empty".to_owned());
    }
    if item == OPT_OUT {
        return Err("none cannot be combined with other references".to_owned());
    }
    let name = ObjectName::new(name).ok_or_else(|| {
        let name = UntrustedText::quoted(name).at_most(MAX_SHOWN_BYTES);
        format!("{name} is not a valid object name (lower-case letters, digits, '-' and '.')")
    })?;
    Ok(Reference { kind, name })
}

/// Why text before the separator that is not a kind of generator is refused, with the likely correction.
fn unsupported_kind(kind: &str, name: &str) -> String {
    if kind == Kind::AccessToken.as_str() {
        let name = UntrustedText::quoted(name).at_most(MAX_SHOWN_BYTES);
        format!("an ACRAccessToken is referenced by its name alone, {name}")
    } else if ObjectName::new(kind).is_some() {
        "an ACRAccessToken of another namespace cannot be referenced: use one of this namespace, or a ClusterGenerator"
            .to_owned()
    } else {
        format!(
            "{} is not a supported kind of generator",
            UntrustedText::quoted(kind).at_most(MAX_SHOWN_BYTES)
        )
    }
}

fn invalid(annotation: &str, why: &str) -> Problem {
    let fact = format!("annotation {ACCESS_TOKEN_ANNOTATION} of the Pod: {why}");
    Problem::new(Reason::InvalidAnnotation, fact).quoting(annotation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(annotation: &str) -> Vec<String> {
        parse_references(annotation)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn references_are_separated_by_commas_and_deduplicated() {
        assert_eq!(parsed("contoso"), ["ACRAccessToken contoso"]);
        assert_eq!(parsed(" a, b.c ,a"), ["ACRAccessToken a", "ACRAccessToken b.c"]);
        assert_eq!(
            parsed("a,ClusterGenerator/a"),
            ["ACRAccessToken a", "ClusterGenerator a"]
        );
        assert!(parsed("none").is_empty());
    }

    #[test]
    fn invalid_annotations_are_refused() {
        let long = "a".repeat(254);
        let many = (0..17).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        for invalid in [
            "",
            ",",
            "a,",
            "A",
            "a b",
            "a,none",
            "Secret/a",
            "clustergenerator/a",
            "ClusterGenerator/",
            "ClusterGenerator/a/b",
            "../etc",
            "a\u{0}",
            &long,
            &many,
        ] {
            let problem = parse_references(invalid).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidAnnotation, "{invalid:?}");
            assert!(problem.fact.contains(ACCESS_TOKEN_ANNOTATION));
        }
    }

    #[test]
    fn a_refusal_says_how_a_reference_is_written() {
        for (annotation, advice) in [
            ("ACRAccessToken/contoso", "by its name alone, \"contoso\""),
            (
                "team-a/contoso",
                "use one of this namespace, or a ClusterGenerator",
            ),
            (
                "Secret/contoso",
                "\"Secret\" is not a supported kind of generator",
            ),
        ] {
            let problem = parse_references(annotation).unwrap_err();
            assert!(problem.fact.contains(advice), "{problem}");
        }
        let problem = parse_default_reference("ACRAccessToken.contoso").unwrap_err();
        assert!(
            problem.fact.contains("by its name alone, \"contoso\""),
            "{problem}"
        );
    }

    #[test]
    fn a_label_references_one_generator_of_either_kind() {
        let parsed = |label| {
            parse_default_reference(label)
                .unwrap()
                .map(|reference| reference.to_string())
        };
        assert_eq!(parsed("contoso").as_deref(), Some("ACRAccessToken contoso"));
        assert_eq!(parsed("contoso.x").as_deref(), Some("ACRAccessToken contoso.x"));
        assert_eq!(
            parsed("ClusterGenerator.contoso.x").as_deref(),
            Some("ClusterGenerator contoso.x")
        );
        assert_eq!(parsed("none"), None);
        for invalid in [
            "",
            "a_b",
            "Contoso",
            "Secret.contoso",
            "ClusterGenerator.",
            "ClusterGenerator",
            "a,b",
        ] {
            let problem = parse_default_reference(invalid).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidAnnotation, "{invalid:?}");
            assert!(
                problem
                    .fact
                    .contains("label acr-pull.dev/access-token of the Namespace"),
                "{problem}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = parse_references(&text);
            let _ = parse_default_reference(&text);
        }

        #[test]
        fn every_valid_label_is_parsed(name in "[a-m]([-a-z0-9]{0,10}[a-z0-9])?(\\.[a-z0-9]{1,3})?") {
            let parsed = |label: &str| parse_default_reference(label).unwrap().map(|r| (r.kind, r.name.to_string()));
            prop_assert_eq!(parsed(&name), Some((Kind::AccessToken, name.clone())));
            prop_assert_eq!(parsed(&format!("ClusterGenerator.{name}")), Some((Kind::ClusterGenerator, name)));
        }

        #[test]
        fn every_valid_annotation_is_parsed(all in prop::collection::hash_set("(ClusterGenerator/)?[a-m]([-a-z0-9]{0,10}[a-z0-9])?", 1..5)) {
            let all: Vec<_> = all.into_iter().collect();
            let expected: Vec<_> = all.iter().map(|text| match text.strip_prefix("ClusterGenerator/") {
                Some(name) => format!("ClusterGenerator {name}"),
                None => format!("ACRAccessToken {text}"),
            }).collect();
            prop_assert_eq!(parsed(&all.join(", ")), expected);
        }
    }
}
