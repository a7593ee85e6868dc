//! The grammar of the Pod annotation: names of generators separated by commas, or `none`.

use crate::problem::{Problem, Reason, shortened};

/// The annotation by which a Pod asks for pull secrets.
pub const ACCESS_TOKEN: &str = "acr-pull.dev/access-token";
/// The value that opts out.
const NONE: &str = "none";
/// Each is a token of its own, all asked for at once.
const MAX_REFERENCES: usize = 16;

/// The generators that the annotation names, each once, in the order written.
pub fn references(annotation: &str) -> Result<Vec<&str>, Problem> {
    if annotation.trim() == NONE {
        return Ok(Vec::new());
    }
    let mut references = Vec::new();
    let items = annotation.split(',');
    if items.clone().count() > MAX_REFERENCES {
        return Err(invalid(
            annotation,
            &format!("it names more than {MAX_REFERENCES} generators"),
        ));
    }
    for item in items {
        let name = item.trim();
        check(annotation, name)?;
        if !references.contains(&name) {
            references.push(name);
        }
    }
    Ok(references)
}

fn check(annotation: &str, name: &str) -> Result<(), Problem> {
    let why = if name.is_empty() {
        "a name is missing".to_owned()
    } else if name == NONE {
        "none stands alone".to_owned()
    } else if let Some((kind, _)) = name.split_once('/') {
        format!(
            "the kind {:?} is not supported by this version; name an ACRAccessToken of the Pod's namespace",
            shortened(kind)
        )
    } else if !is_subdomain(name) {
        format!(
            "{:?} is not a name: use lower-case letters, digits, '-' and '.'",
            shortened(name)
        )
    } else {
        return Ok(());
    };
    Err(invalid(annotation, &why))
}

fn invalid(annotation: &str, why: &str) -> Problem {
    let annotation = shortened(annotation);
    Problem::new(
        Reason::InvalidAnnotation,
        format!(
            "annotation {ACCESS_TOKEN} of the Pod is {annotation:?}: {why}; \
             write the names of ACRAccessTokens separated by commas, or none"
        ),
    )
}

/// A DNS subdomain (RFC 1123), as every object name.
pub(super) fn is_subdomain(name: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(alnum)
                && bytes.last().is_some_and(alnum)
                && bytes.iter().all(|b| alnum(b) || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_separated_by_commas_and_counted_once() {
        assert_eq!(references("contoso").unwrap(), ["contoso"]);
        assert_eq!(references(" a, b.c ,a").unwrap(), ["a", "b.c"]);
        assert!(references("none").unwrap().is_empty());
    }

    #[test]
    fn a_bad_annotation_says_what_to_write() {
        for bad in [
            "",
            ",",
            "a,",
            "A",
            "a b",
            "a,none",
            "ClusterGenerator/contoso",
            "../etc",
            "a\u{0}",
            &"a".repeat(254),
            &(0..17).map(|n| format!("a{n}")).collect::<Vec<_>>().join(","),
        ] {
            let problem = references(bad).unwrap_err();
            assert_eq!(problem.reason, Reason::InvalidAnnotation, "{bad:?}");
            assert!(problem.message.contains(ACCESS_TOKEN));
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = references(&text);
        }

        #[test]
        fn written_names_are_read_back(names in prop::collection::hash_set("[a-m]([-a-z0-9]{0,10}[a-z0-9])?", 1..5)) {
            let names: Vec<_> = names.into_iter().collect();
            let text = names.join(", ");
            prop_assert_eq!(references(&text).unwrap(), names);
        }
    }
}
