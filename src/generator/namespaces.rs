//! Lists of namespaces: names separated by commas, or `*` for all.

use crate::{foreign::Foreign, registry::is_dns_name};
use std::str::FromStr;

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
                Foreign::quoted(bad)
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
