//! The scope grammar of the distribution token protocol, as far as ACR takes it:
//! `repository:team/app:pull,push`, several separated by blanks, no wildcards.
//! Source: <https://distribution.github.io/distribution/spec/auth/scope/>.

use crate::{
    foreign::Foreign,
    problem::{Problem, Reason},
};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

/// What an ACR access token shall open; checked, in the order written, with one blank between its parts. Kept as text: it is
/// remembered for each service account that uses the generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Box<str>);

/// One part of a scope.
#[derive(Serialize)]
struct Access<'a> {
    name: &'a str,
    actions: Vec<&'a str>,
}

/// One entry of an access token's `access` claim.
/// Source: <https://distribution.github.io/distribution/spec/auth/jwt/>.
#[derive(Debug, Deserialize)]
pub struct Granted {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

const PULL: &str = "pull";
/// The only resource type of which a Pod can pull.
const TYPE: &str = "repository";
/// The longest scope, in bytes. It is sent to the registry and kept in a status.
pub const MAX_LENGTH: usize = 4096;
/// The most repositories in one.
const MAX_PARTS: usize = 64;

// === impl Scope ===

impl Scope {
    /// Parses a generator's `spec.scope`. What is too long is refused before any of it is read.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_LENGTH {
            return Err(Problem::new(
                Reason::ScopeInvalid,
                format!(
                    "spec.scope is longer than {MAX_LENGTH} bytes; name fewer repositories, or leave it out"
                ),
            ));
        }
        let mut checked = String::with_capacity(text.len());
        for (number, part) in text.split_ascii_whitespace().enumerate() {
            if number == MAX_PARTS {
                let why = format!("it names more than {MAX_PARTS} repositories");
                return Err(invalid(text, part, &why));
            }
            Access::parse(text, part)?;
            if number > 0 {
                checked.push(' ');
            }
            checked.push_str(part);
        }
        match checked.is_empty() {
            true => Err(invalid(
                text,
                text,
                "it is empty; leave it out for an unscoped token",
            )),
            false => Ok(Self(checked.into_boxed_str())),
        }
    }

    /// The first repository that is to be pulled from and that a token with this `access` claim does not open. A claim with a
    /// wildcard in it is not judged: no public source says how ACR means one.
    pub fn not_granted(&self, access: &[Granted]) -> Option<&str> {
        if access.iter().any(|granted| granted.name.contains('*')) {
            return None;
        }
        let opens = |name: &str| {
            access.iter().any(|granted| {
                granted.kind == TYPE && granted.name == name && granted.actions.iter().any(|a| a == PULL)
            })
        };
        let mut pulls = self.parts().filter(|part| part.actions.contains(&PULL));
        pulls.find(|part| !opens(part.name)).map(|part| part.name)
    }

    fn parts(&self) -> impl Iterator<Item = Access<'_>> {
        // Each was parsed before.
        self.0
            .split(' ')
            .filter_map(|part| Access::parse(&self.0, part).ok())
    }
}

/// As a list, which is what the fingerprints of pull secrets are made of.
impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.parts())
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Access ===

impl<'a> Access<'a> {
    fn parse(text: &str, entry: &'a str) -> Result<Self, Problem> {
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
            name,
            actions: actions.split(',').collect(),
        })
    }
}

/// `part` is a slice of `text`, so its place can be told by address.
fn invalid(text: &str, part: &str, why: &str) -> Problem {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let column = text.get(..offset).map_or(0, |before| before.chars().count()) + 1;
    let text = Foreign::quoted(text);
    Problem::new(
        Reason::ScopeInvalid,
        format!("spec.scope {text} is invalid at character {column}: {why}"),
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

    #[test]
    fn a_scope_has_a_bound_and_is_not_read_beyond_it() {
        let part = |n: usize| format!("repository:r{n}:pull");
        let most = (0..MAX_PARTS).map(part).collect::<Vec<_>>().join(" ");
        assert!(Scope::parse(&most).is_ok());
        let more = format!("{most} {}", part(MAX_PARTS));
        let problem = Scope::parse(&more).unwrap_err();
        assert!(problem.message.contains("more than 64 repositories"), "{problem}");
        let long = format!("repository:{}:pull", "a".repeat(MAX_LENGTH));
        for text in [long, "repository:app:pull ".repeat(1 << 16)] {
            let problem = Scope::parse(&text).unwrap_err();
            assert_eq!(problem.reason, Reason::ScopeInvalid);
            assert!(problem.message.contains("longer than 4096 bytes"), "{problem}");
            assert!(problem.message.len() < 200);
        }
    }

    #[test]
    fn its_part_of_a_fingerprint_stays_as_it_was() {
        // Pull secrets in clusters were made with this.
        let scope = Scope::parse(" repository:team/app:pull  repository:b:pull,push").unwrap();
        assert_eq!(
            serde_json::to_string(&scope).unwrap(),
            r#"[{"name":"team/app","actions":["pull"]},{"name":"b","actions":["pull","push"]}]"#
        );
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
