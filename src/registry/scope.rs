//! The part of the distribution token protocol's scope grammar that ACR accepts: `repository:team/app:pull,push`.
//! Several scopes are separated by spaces. Wildcards are not supported.
//! Source: <https://distribution.github.io/distribution/spec/auth/scope/>.

use crate::problem::{Problem, Reason};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;

const PULL: &str = "pull";
/// The only resource type that a Pod can pull from.
const REPOSITORY: &str = "repository";
/// The longest scope, in bytes. The scope is sent to the registry and stored in a status.
pub const MAX_SCOPE_LENGTH: usize = 4096;
/// The highest number of repositories in one scope.
const MAX_REPOSITORIES: usize = 64;

/// The access that an ACR access token is requested for: a checked scope with one space between its parts, in their
/// original order. It is kept as text, because the cache keeps one for each service account that uses the generator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Box<str>);

impl Scope {
    /// Parses a generator's `spec.scope`. A scope that is too long is rejected before it is parsed.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX_SCOPE_LENGTH {
            return Err(Problem::new(
                Reason::ScopeInvalid,
                format!(
                    "spec.scope is longer than {MAX_SCOPE_LENGTH} bytes: name fewer repositories, or remove it"
                ),
            ));
        }
        let mut checked = String::with_capacity(text.len());
        let mut can_pull = false;
        for (number, part) in text.split_ascii_whitespace().enumerate() {
            if number == MAX_REPOSITORIES {
                let why = format!("it names more than {MAX_REPOSITORIES} repositories");
                return Err(invalid(text, part, &why));
            }
            can_pull |= RequestedAccess::parse(text, part)?.actions.contains(&PULL);
            if number > 0 {
                checked.push(' ');
            }
            checked.push_str(part);
        }
        if checked.is_empty() {
            let why = "it is empty, so remove it to get an unscoped token";
            return Err(invalid(text, text, why));
        }
        if !can_pull {
            let why = "no repository has the action pull, so the kubelet could not pull an image";
            return Err(invalid(text, text, why));
        }
        Ok(Self(checked.into_boxed_str()))
    }

    /// The first repository with the `pull` action that a token with this `access` claim cannot pull from. `None` if
    /// the claim contains a wildcard, because no public source documents how ACR interprets one.
    pub fn first_not_granted(&self, access: &[GrantedAccess]) -> Option<&str> {
        if access.iter().any(|granted| granted.name.contains('*')) {
            return None;
        }
        let can_pull = |name: &str| {
            access.iter().any(|granted| {
                granted.kind == REPOSITORY
                    && granted.name == name
                    && granted.actions.iter().any(|a| a == PULL)
            })
        };
        let mut pulls = self.parts().filter(|part| part.actions.contains(&PULL));
        pulls.find(|part| !can_pull(part.name)).map(|part| part.name)
    }

    /// Whether a token with this scope can pull from the repository.
    pub fn can_pull(&self, repository: &str) -> bool {
        // `parse` accepted every part. A warm admission must not parse or allocate again.
        self.0.split(' ').any(|part| {
            let rest = part
                .strip_prefix(REPOSITORY)
                .and_then(|rest| rest.strip_prefix(':'));
            rest.and_then(|rest| rest.rsplit_once(':'))
                .is_some_and(|(name, actions)| name == repository && actions.split(',').any(|a| a == PULL))
        })
    }

    fn parts(&self) -> impl Iterator<Item = RequestedAccess<'_>> {
        // `parse` accepted every part, so none is dropped here.
        self.0
            .split(' ')
            .filter_map(|part| RequestedAccess::parse(&self.0, part).ok())
    }
}

/// Serializes the scope as a list, because the fingerprints of pull secrets are computed from this form.
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

/// One part of a scope.
#[derive(Serialize)]
struct RequestedAccess<'a> {
    name: &'a str,
    actions: Vec<&'a str>,
}

impl<'a> RequestedAccess<'a> {
    fn parse(text: &str, entry: &'a str) -> Result<Self, Problem> {
        let (kind, rest) = entry
            .split_once(':')
            .ok_or_else(|| invalid(text, entry, "expected repository:NAME:ACTIONS"))?;
        if kind != REPOSITORY {
            return Err(invalid(text, kind, "the resource type must be \"repository\""));
        }
        let (name, actions) = rest
            .rsplit_once(':')
            .ok_or_else(|| invalid(text, rest, "expected actions after the name, such as :pull"))?;
        if entry.contains('*') {
            let star = &entry[entry.find('*').unwrap_or(0)..];
            return Err(invalid(
                text,
                star,
                "wildcards are not supported, so name each repository and action",
            ));
        }
        if let Some((host, _)) = name.split_once('/').filter(|(first, _)| is_registry(first)) {
            let why = "a repository name does not include the registry";
            return Err(invalid(text, host, why));
        }
        for component in name.split('/') {
            if !is_path_component(component) {
                let at = if component.is_empty() { rest } else { component };
                return Err(invalid(
                    text,
                    at,
                    "a repository name has parts of lower-case letters, digits, '.', '_' and '-', separated by '/'",
                ));
            }
        }
        for action in actions.split(',') {
            if action.is_empty() || !action.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                let at = if action.is_empty() { rest } else { action };
                return Err(invalid(
                    text,
                    at,
                    "actions are names such as pull or push, separated by ','",
                ));
            }
        }
        Ok(Self {
            name,
            actions: actions.split(',').collect(),
        })
    }
}

/// One entry of an access token's `access` claim.
/// Source: <https://distribution.github.io/distribution/spec/auth/jwt/>.
#[derive(Debug, Deserialize)]
pub struct GrantedAccess {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// The problem of an invalid scope. `part` is a slice of `text`, so the addresses of the two give its position.
fn invalid(text: &str, part: &str, why: &str) -> Problem {
    let offset = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let column = text.get(..offset).map_or(0, |before| before.chars().count()) + 1;
    Problem::new(
        Reason::ScopeInvalid,
        format!("spec.scope is invalid at character {column}: {why}"),
    )
    .quoting(text)
}

/// Whether the first part of a name is a registry of one of Azure's clouds. A registry of another domain cannot be
/// distinguished from a part with a dot in it.
fn is_registry(first: &str) -> bool {
    let mut suffixes = super::DEFAULT_SUFFIXES.split(',');
    suffixes.any(|suffix| first.ends_with(&format!(".{suffix}")))
}

/// Whether `part` is a path component of a repository name in distribution's reference grammar: alphanumeric runs
/// joined by one `.`, one or two `_`, or any number of `-`.
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
    fn several_scopes_with_nested_names_are_kept_as_written() {
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
            ("repository:app:push", 1),
            ("repository:app:read repository:b:pul", 1),
            ("repository:contoso.azurecr.io/app:pull", 12),
            ("repository:app:pull repository:contoso.azurecr.cn/app:pull", 32),
            ("nonsense", 1),
            ("", 1),
        ] {
            let problem = Scope::parse(text).unwrap_err();
            assert_eq!(problem.reason, Reason::ScopeInvalid);
            assert!(
                problem.fact.contains(&format!("at character {column}:")),
                "{text:?}: {}",
                problem.fact
            );
        }
    }

    #[test]
    fn a_scope_with_too_many_bytes_or_repositories_is_refused() {
        let part = |n: usize| format!("repository:r{n}:pull");
        let longest = (0..MAX_REPOSITORIES).map(part).collect::<Vec<_>>().join(" ");
        assert!(Scope::parse(&longest).is_ok());
        let more = format!("{longest} {}", part(MAX_REPOSITORIES));
        let problem = Scope::parse(&more).unwrap_err();
        assert!(problem.fact.contains("more than 64 repositories"), "{problem}");
        let long = format!("repository:{}:pull", "a".repeat(MAX_SCOPE_LENGTH));
        for text in [long, "repository:app:pull ".repeat(1 << 16)] {
            let problem = Scope::parse(&text).unwrap_err();
            assert_eq!(problem.reason, Reason::ScopeInvalid);
            assert!(problem.fact.contains("longer than 4096 bytes"), "{problem}");
            assert!(problem.fact.len() < 200);
        }
    }

    #[test]
    fn only_repositories_with_the_pull_action_can_be_pulled() {
        let scope = Scope::parse("repository:team/app:push,pull repository:team/db:push").unwrap();
        assert!(scope.can_pull("team/app"));
        for other in [
            "team/db",
            "team",
            "app",
            "team/app:push",
            "repository:team/app",
            "",
        ] {
            assert!(!scope.can_pull(other), "{other}");
        }
    }

    #[test]
    fn the_serialized_form_never_changes() {
        // The stored fingerprints of existing pull secrets depend on it.
        let scope = Scope::parse(" repository:team/app:pull  repository:b:pull,push").unwrap();
        assert_eq!(
            serde_json::to_string(&scope).unwrap(),
            r#"[{"name":"team/app","actions":["pull"]},{"name":"b","actions":["pull","push"]}]"#
        );
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = Scope::parse(&text);
        }

        #[test]
        fn a_valid_scope_is_printed_as_it_was_written(names in prop::collection::vec("[a-z0-9]{1,5}([._-][a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,4}){0,3}:(pull|push,pull|pull,push)", 1..4)) {
            let text = names.iter().map(|n| format!("repository:{n}")).collect::<Vec<_>>().join(" ");
            let scope = Scope::parse(&text).unwrap();
            prop_assert_eq!(scope.to_string(), text);
        }
    }
}
