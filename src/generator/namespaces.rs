//! Lists of namespaces: names separated by commas, or `*` for all namespaces.

use crate::{names::NamespaceName, problem::Advice, untrusted::UntrustedText};
use std::{fmt, str::FromStr};

/// The annotation of a service account or a ClusterGenerator that lists the namespaces whose Pods may use it.
pub const ALLOWED_NAMESPACES: &str = "acr-pull.dev/allowed-namespaces";
/// The maximum length of a list in an annotation, in bytes.
const MAX_LENGTH: usize = 4096;
/// The maximum number of names in a list in an annotation.
const MAX_NAMES: usize = 256;

/// Checks that an object with this list in its annotation may be used by Pods of a namespace. The hint of the error
/// continues a sentence about the object: why the Pods may not use it. The command is for its owner. `annotate_command` is the command
/// that annotates the object, without the annotation.
pub fn check_allowed(
    list: &str,
    pod_namespace: &str,
    annotate_command: fmt::Arguments<'_>,
) -> Result<(), Advice> {
    let list = list.trim();
    if is_too_long(list) {
        return Err(Advice::new(format!(
            "has an annotation {ALLOWED_NAMESPACES} of more than {MAX_LENGTH} bytes or {MAX_NAMES} names: shorten it"
        )));
    }
    if contains(list, pod_namespace) {
        return Ok(());
    }
    // The message does not contain the present list: the creator of the Pod need not know which other namespaces are
    // allowed, and untrusted text must not become part of a command. The owner replaces PRESENT by the present list, so
    // that the other namespaces stay allowed.
    let (present, instruction) = match (list, list.parse::<NamespaceList>()) {
        ("", _) => ("", ""),
        (_, Ok(_)) => ("PRESENT,", " (PRESENT: the present value)"),
        (_, Err(_)) => (
            "PRESENT,",
            " (PRESENT: the names in the present value, which is not a list)",
        ),
    };
    let hint = format!("does not allow Pods of namespace {pod_namespace}: its owner can{instruction}");
    Err(Advice::new(hint).command(format!(
        "{annotate_command} {ALLOWED_NAMESPACES}={present}{pod_namespace}"
    )))
}

fn is_too_long(list: &str) -> bool {
    list.len() > MAX_LENGTH || list.split(',').nth(MAX_NAMES).is_some()
}

/// Whether an unvalidated list contains this namespace.
fn contains(list: &str, namespace: &str) -> bool {
    let mut entries = list.split(',').map(str::trim);
    entries.any(|entry| entry == "*" || entry == namespace)
}

/// A valid list of namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceList {
    has_star: bool,
    names: Vec<NamespaceName>,
}

impl NamespaceList {
    /// Whether the list contains this namespace.
    pub fn contains(&self, namespace: &str) -> bool {
        self.has_star || self.names.iter().any(|name| *name == namespace)
    }
}

impl FromStr for NamespaceList {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let mut parsed = Self::default();
        if list.trim().is_empty() {
            return Ok(parsed);
        }
        for entry in list.split(',').map(str::trim) {
            match NamespaceName::new(entry) {
                Some(name) => parsed.names.push(name),
                None if entry == "*" => parsed.has_star = true,
                None => {
                    return Err(format!(
                        "{} is neither the name of a namespace nor * for all namespaces",
                        UntrustedText::quoted(entry)
                    ));
                }
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_contains_a_namespace_by_its_full_name_or_by_a_star() {
        for (list, contained) in [
            ("team-a", true),
            ("x, team-a", true),
            ("*", true),
            ("", false),
            ("team", false),
            ("team-ab", false),
        ] {
            let list: NamespaceList = list.parse().unwrap();
            assert_eq!(list.contains("team-a"), contained, "{list:?}");
        }
        assert!(!NamespaceList::default().contains("team-a"));
    }

    #[test]
    fn the_length_of_a_list_is_limited() {
        let names = |count: usize| vec!["a"; count].join(",");
        assert!(!is_too_long(&names(MAX_NAMES)));
        assert!(is_too_long(&names(MAX_NAMES + 1)));
        assert!(is_too_long(&"a".repeat(MAX_LENGTH + 1)));
        assert!(!is_too_long(""));
    }

    #[test]
    fn invalid_namespace_names_are_refused() {
        for invalid in ["team-*", "a,,b", "Team", "a.b", "a b", &"a".repeat(64)] {
            assert!(invalid.parse::<NamespaceList>().is_err(), "{invalid}");
        }
    }
}
