//! The scope grammar of the distribution token protocol, as far as ACR takes it:
//! `repository:team/app:pull,push`, several separated by blanks, no wildcards.
//! Source: <https://distribution.github.io/distribution/spec/auth/scope/>.

use crate::problem::{Problem, Reason};
use serde::Serialize;
use std::fmt;

/// What an ACR access token shall open; parsed, in the order written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scope(Vec<Access>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Access {
    name: String,
    actions: Vec<String>,
}

/// The only resource type of which a Pod can pull.
const TYPE: &str = "repository";

// === impl Scope ===

impl Scope {
    /// Parses a generator's `spec.scope`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let entries: Vec<_> = text.split_ascii_whitespace().collect();
        if entries.is_empty() {
            return Err(invalid(
                text,
                text,
                "it is empty; leave it out for an unscoped token",
            ));
        }
        entries
            .into_iter()
            .map(|entry| Access::parse(text, entry))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, access) in self.0.iter().enumerate() {
            let blank = if i == 0 { "" } else { " " };
            write!(f, "{blank}{TYPE}:{}:{}", access.name, access.actions.join(","))?;
        }
        Ok(())
    }
}

// === impl Access ===

impl Access {
    fn parse(text: &str, entry: &str) -> Result<Self, Problem> {
        let (kind, rest) = entry
            .split_once(':')
            .ok_or_else(|| invalid(text, entry, "expected repository:NAME:ACTIONS"))?;
        if kind != TYPE {
            return Err(invalid(text, kind, "the only type is \"repository\""));
        }
        let (name, actions) = rest
            .rsplit_once(':')
            .ok_or_else(|| invalid(text, rest, "expected the actions after it, such as :pull"))?;
        if entry.contains('*') {
            let star = &entry[entry.find('*').unwrap_or(0)..];
            return Err(invalid(
                text,
                star,
                "wildcards are not available; name each repository and action",
            ));
        }
        for component in name.split('/') {
            if !is_path_component(component) {
                let at = if component.is_empty() { rest } else { component };
                return Err(invalid(
                    text,
                    at,
                    "a repository name is lower-case letters and digits, separated by '.', '_', '__' or '-', in parts separated by '/'",
                ));
            }
        }
        for action in actions.split(',') {
            if action.is_empty() || !action.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                let at = if action.is_empty() { rest } else { action };
                return Err(invalid(
                    text,
                    at,
                    "actions are words such as pull or push, separated by ','",
                ));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            actions: actions.split(',').map(str::to_owned).collect(),
        })
    }
}

/// `part` is a slice of `text`, so its place can be told by address.
fn invalid(text: &str, part: &str, why: &str) -> Problem {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let column = text.get(..offset).map_or(0, |before| before.chars().count()) + 1;
    Problem::new(
        Reason::ScopeInvalid,
        format!("spec.scope {text:?} is invalid at character {column}: {why}"),
    )
}

/// One part of a repository name in the reference grammar of distribution:
/// alphanumeric runs joined by one `.`, one or two `_`, or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    alnum(first)
        && alnum(last)
        && part
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|sep| matches!(sep, "" | "." | "_" | "__") || sep.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn several_scopes_and_nested_names_are_kept_as_written() {
        let text = "repository:team/app:pull repository:a-b/c__d.e/f:pull,push";
        assert_eq!(Scope::parse(text).unwrap().to_string(), text);
    }

    #[test]
    fn an_error_points_at_the_character() {
        for (text, column) in [
            ("repository:*:pull", 12),
            ("repository:team/*:pull", 17),
            ("repository:team/app:*", 21),
            ("registry:catalog:pull", 1),
            ("repository:app", 12),
            ("repository:app:pull repository:App:pull", 32),
            ("repository:app:pull repository:app:PULL", 36),
            ("repository::pull", 12),
            ("nonsense", 1),
            ("", 1),
        ] {
            let problem = Scope::parse(text).unwrap_err();
            assert_eq!(problem.reason, Reason::ScopeInvalid);
            assert!(
                problem.message.contains(&format!("at character {column}:")),
                "{text:?}: {}",
                problem.message
            );
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = Scope::parse(&text);
        }

        #[test]
        fn what_parses_round_trips(names in prop::collection::vec("[a-z0-9]{1,5}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,4}){0,3}:(pull|push|pull,push)", 1..4)) {
            let text = names.iter().map(|n| format!("repository:{n}")).collect::<Vec<_>>().join(" ");
            let scope = Scope::parse(&text).unwrap();
            prop_assert_eq!(scope.to_string(), text);
        }
    }
}
