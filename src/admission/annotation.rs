//! The two grammars of references to generators: that of the Pod annotation, and that of the Namespace
//! label, whose values hold neither `/` nor `,`.

use crate::{
    generator::{Kind, Reference},
    kubernetes::is_subdomain,
    problem::{Problem, Reason},
    untrusted::UntrustedText,
};

/// The annotation by which a Pod asks for pull secrets.
pub const ACCESS_TOKEN: &str = "acr-pull.dev/access-token";
/// The value that opts out.
const NONE: &str = "none";
/// Each is a token of its own, all asked for at once.
pub const MAX_REFERENCES: usize = 16;

/// The generators that the annotation names, each once, in the order written.
pub fn references(annotation: &str) -> Result<Vec<Reference<'_>>, Problem> {
    if annotation.trim() == NONE {
        return Ok(Vec::new());
    }
    let items = annotation.split(',');
    if items.clone().count() > MAX_REFERENCES {
        let why = format!("it names more than {MAX_REFERENCES} generators");
        return Err(invalid(annotation, &why));
    }
    let mut references = Vec::new();
    for item in items {
        let reference = reference(item.trim(), '/').map_err(|why| invalid(annotation, &why))?;
        if !references.contains(&reference) {
            references.push(reference);
        }
    }
    Ok(references)
}

/// The generator that a Namespace's label names, if it is not `none`.
pub fn default_reference(label: &str) -> Result<Option<Reference<'_>>, Problem> {
    if label == NONE {
        return Ok(None);
    }
    reference(label, '.').map(Some).map_err(|why| {
        let label = UntrustedText::quoted(label);
        Problem::new(
            Reason::InvalidAnnotation,
            format!(
                "label {ACCESS_TOKEN} of the Namespace is {label}: {why}; write the name of an ACRAccessToken, \
                 or ClusterGenerator.NAME, or none"
            ),
        )
    })
}

/// `separator` stands between kind and name. No name begins with a capital letter, so that a `.` can do.
fn reference(item: &str, separator: char) -> Result<Reference<'_>, String> {
    let is_kind = |kind: &str| separator == '/' || kind.starts_with(|c: char| c.is_ascii_uppercase());
    let (kind, name) = match item.split_once(separator).filter(|(kind, _)| is_kind(kind)) {
        None => (Kind::AccessToken, item),
        Some((kind, name)) if kind == Kind::ClusterGenerator.as_str() => (Kind::ClusterGenerator, name),
        Some((kind, _)) => {
            return Err(format!(
                "{} is not a kind of generator that is served here",
                UntrustedText::quoted(kind)
            ));
        }
    };
    if name.is_empty() {
        Err("a name is missing".to_owned())
    } else if item == NONE {
        Err("none stands alone".to_owned())
    } else if !is_subdomain(name) {
        let name = UntrustedText::quoted(name);
        Err(format!(
            "{name} is not a name: use lower-case letters, digits, '-' and '.'"
        ))
    } else {
        Ok(Reference { kind, name })
    }
}

fn invalid(annotation: &str, why: &str) -> Problem {
    let annotation = UntrustedText::quoted(annotation);
    Problem::new(
        Reason::InvalidAnnotation,
        format!(
            "annotation {ACCESS_TOKEN} of the Pod is {annotation}: {why}; write the names of ACRAccessTokens, \
             or ClusterGenerator/NAME, separated by commas, or none"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// References as text, to compare.
    fn written(annotation: &str) -> Vec<String> {
        references(annotation)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn references_are_separated_by_commas_and_counted_once() {
        assert_eq!(written("contoso"), ["ACRAccessToken contoso"]);
        assert_eq!(written(" a, b.c ,a"), ["ACRAccessToken a", "ACRAccessToken b.c"]);
        assert_eq!(
            written("a,ClusterGenerator/a"),
            ["ACRAccessToken a", "ClusterGenerator a"]
        );
        assert!(written("none").is_empty());
    }

    #[test]
    fn a_bad_annotation_says_what_to_write() {
        let long = "a".repeat(254);
        let many = (0..17).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        for bad in [
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
            let problem = references(bad).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidAnnotation, "{bad:?}");
            assert!(problem.message.contains(ACCESS_TOKEN));
        }
    }

    #[test]
    fn a_namespaces_label_names_one_generator_of_either_kind() {
        let read = |label| {
            default_reference(label)
                .unwrap()
                .map(|reference| reference.to_string())
        };
        assert_eq!(read("contoso").as_deref(), Some("ACRAccessToken contoso"));
        assert_eq!(read("contoso.x").as_deref(), Some("ACRAccessToken contoso.x"));
        assert_eq!(
            read("ClusterGenerator.contoso.x").as_deref(),
            Some("ClusterGenerator contoso.x")
        );
        assert_eq!(read("none"), None);
        for bad in [
            "",
            "a_b",
            "Contoso",
            "Secret.contoso",
            "ClusterGenerator.",
            "ClusterGenerator",
            "a,b",
        ] {
            let problem = default_reference(bad).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidAnnotation, "{bad:?}");
            assert!(
                problem
                    .message
                    .contains("label acr-pull.dev/access-token of the Namespace"),
                "{problem}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = references(&text);
            let _ = default_reference(&text);
        }

        #[test]
        fn a_label_that_is_written_is_read_back(name in "[a-m]([-a-z0-9]{0,10}[a-z0-9])?(\\.[a-z0-9]{1,3})?") {
            let read = |label: &str| default_reference(label).unwrap().map(|r| (r.kind, r.name.to_owned()));
            prop_assert_eq!(read(&name), Some((Kind::AccessToken, name.clone())));
            prop_assert_eq!(read(&format!("ClusterGenerator.{name}")), Some((Kind::ClusterGenerator, name)));
        }

        #[test]
        fn what_is_written_is_read_back(all in prop::collection::hash_set("(ClusterGenerator/)?[a-m]([-a-z0-9]{0,10}[a-z0-9])?", 1..5)) {
            let all: Vec<_> = all.into_iter().collect();
            let read: Vec<_> = all.iter().map(|text| match text.strip_prefix("ClusterGenerator/") {
                Some(name) => format!("ClusterGenerator {name}"),
                None => format!("ACRAccessToken {text}"),
            }).collect();
            prop_assert_eq!(written(&all.join(", ")), read);
        }
    }
}
