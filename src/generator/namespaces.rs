//! Lists of namespaces: names separated by commas, or `*` for all.

use crate::{registry::is_dns_name, untrusted::UntrustedText};
use std::{fmt, str::FromStr};

/// The annotation by which a service account or a ClusterGenerator says from which namespaces it may be used: their names separated
/// by commas, or `*`.
pub const ALLOWED_NAMESPACES: &str = "acr-pull.dev/allowed-namespaces";
/// The longest list in an annotation, in bytes.
pub const MAX_LENGTH: usize = 4096;
/// The most names in it.
pub const MAX_NAMES: usize = 256;

/// A list that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceList(String);

/// Whether a list, as somebody wrote it, is longer than one may be.
pub fn is_too_long(list: &str) -> bool {
    list.len() > MAX_LENGTH || list.split(',').nth(MAX_NAMES).is_some()
}

/// Whether an object with this list in its annotation may be used by Pods of a namespace. An error says of the object why not and
/// what its owner can do; `annotate` is the command that sets annotations of the object.
pub fn check_allowed(list: &str, pods: &str, annotate: fmt::Arguments<'_>) -> Result<(), String> {
    let list = list.trim();
    if is_too_long(list) {
        return Err(format!(
            "has an annotation {ALLOWED_NAMESPACES} that is longer than {MAX_LENGTH} bytes or {MAX_NAMES} names, and is not \
             read; whoever owns it can shorten it"
        ));
    }
    if contains(list, pods) {
        return Ok(());
    }
    // Not whom else it allows: that is no matter of whoever made this Pod. Nor is it text for a command. A list that is there
    // stays in force by being written again, so whoever owns it puts it in the place of PRESENT.
    let (present, what_present_is) = match (list, list.parse::<NamespaceList>()) {
        ("", _) => ("", ""),
        (_, Ok(_)) => ("PRESENT,", ", with its present value in the place of PRESENT"),
        (_, Err(_)) => (
            "PRESENT,",
            ", with the names of its present value, which is no list of namespaces, in the place of PRESENT",
        ),
    };
    Err(format!(
        "does not allow Pods of namespace {pods}; whoever owns it can{what_present_is}: \
         {annotate} {ALLOWED_NAMESPACES}={present}{pods}"
    ))
}

/// Whether a list, as somebody wrote it, has this namespace.
pub fn contains(list: &str, namespace: &str) -> bool {
    let mut entries = list.split(',').map(str::trim);
    entries.any(|entry| entry == "*" || entry == namespace)
}

// === impl NamespaceList ===

impl NamespaceList {
    /// Whether it has this namespace.
    pub fn contains(&self, namespace: &str) -> bool {
        contains(&self.0, namespace)
    }
}

impl FromStr for NamespaceList {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let is_name =
            |entry: &str| is_dns_name(entry) && !entry.contains(['.']) && entry == entry.to_ascii_lowercase();
        let mut entries = list.split(',').map(str::trim);
        match entries.find(|entry| !(list.trim().is_empty() || *entry == "*" || is_name(entry))) {
            Some(bad) => Err(format!(
                "{} is not the name of a namespace, nor * for all",
                UntrustedText::quoted(bad)
            )),
            None => Ok(Self(list.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_in_a_list_by_its_whole_name_or_by_the_star() {
        for (list, has) in [
            ("team-a", true),
            ("x, team-a", true),
            ("*", true),
            ("", false),
            ("team", false),
            ("team-ab", false),
        ] {
            let list: NamespaceList = list.parse().unwrap();
            assert_eq!(list.contains("team-a"), has, "{list:?}");
        }
        assert!(!NamespaceList::default().contains("team-a"));
    }

    #[test]
    fn a_list_has_a_length() {
        let names = |count: usize| vec!["a"; count].join(",");
        assert!(!is_too_long(&names(MAX_NAMES)));
        assert!(is_too_long(&names(MAX_NAMES + 1)));
        assert!(is_too_long(&"a".repeat(MAX_LENGTH + 1)));
        assert!(!is_too_long(""));
    }

    #[test]
    fn what_can_be_no_namespace_is_refused() {
        for bad in ["team-*", "a,,b", "Team", "a.b", "a b"] {
            assert!(bad.parse::<NamespaceList>().is_err(), "{bad}");
        }
    }
}
