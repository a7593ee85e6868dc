//! Scopes, as clients ask for them, and rights, as a registry grants them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of the one resource of type `registry` that ACR knows.
const CATALOG: &str = "catalog";

/// One entry of an access token's `access` claim; as text, a scope such as `repository:shop/web:pull,push`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Access {
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Registry,
    Repository,
}

/// What one application may do in one registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Right {
    pub(crate) client_id: String,
    /// Exact names, `prefix/*`, or `*`.
    #[serde(default)]
    pub(crate) repositories: Vec<String>,
    #[serde(default)]
    pub(crate) actions: Vec<Action>,
    /// Whether the repositories may be listed.
    #[serde(default)]
    pub(crate) catalog: bool,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    Pull,
    Push,
    Delete,
    MetadataRead,
    MetadataWrite,
}

// === impl Access ===

impl Access {
    pub(crate) fn repository(name: &str, actions: &[&str]) -> Self {
        let actions = actions.iter().map(|action| (*action).to_owned()).collect();
        Self {
            kind: Kind::Repository,
            name: name.to_owned(),
            actions,
        }
    }

    pub(crate) fn catalog() -> Self {
        Self {
            kind: Kind::Registry,
            name: CATALOG.to_owned(),
            actions: vec!["*".to_owned()],
        }
    }

    /// Reads the value of a `scope` parameter: scopes separated by blanks.
    pub(crate) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        text.split_whitespace().map(Self::parse).collect()
    }

    /// Reads `type:name:action[,action]`.
    fn parse(scope: &str) -> Result<Self, String> {
        let refused = |why: &str| Err(format!("invalid scope '{scope}': {why}"));
        let Some(((kind, name), actions)) = scope
            .rsplit_once(':')
            .and_then(|(resource, actions)| Some((resource.split_once(':')?, actions)))
        else {
            return refused("it is not of the form type:name:actions");
        };
        let actions: Vec<String> = actions.split(',').map(str::to_owned).collect();
        match kind {
            "registry" if name == CATALOG && actions == ["*"] => Ok(Self::catalog()),
            "registry" => refused("only registry:catalog:* is known"),
            "repository" if name.contains('*') => refused("wildcards in repository names are not supported"),
            "repository" if !is_repository(name) => refused("the repository name is not valid"),
            "repository" if !actions.iter().all(|action| is_action(action)) => {
                refused("the actions are not valid")
            }
            "repository" => Ok(Self {
                kind: Kind::Repository,
                name: name.to_owned(),
                actions,
            }),
            _ => refused("only the types repository and registry are known"),
        }
    }

    /// Whether this entry of a token allows all of what is needed.
    pub(crate) fn covers(&self, needed: &Self) -> bool {
        let same = self.kind == needed.kind && self.name == needed.name;
        same && needed.actions.iter().all(|action| self.actions.contains(action))
    }

    /// The part of this wish that a token's entries already hold.
    pub(crate) fn within(&self, held: &[Self]) -> Self {
        let of_same = |entry: &&Self| entry.kind == self.kind && entry.name == self.name;
        let held: Vec<String> = held
            .iter()
            .filter(of_same)
            .flat_map(|entry| entry.actions.clone())
            .collect();
        self.only(|action| held.iter().any(|have| have == action), held.clone())
    }

    /// The part of this wish that the registry's rights grant to the application.
    pub(crate) fn granted(&self, rights: &[Right], client_id: &str) -> Self {
        let own = || {
            rights
                .iter()
                .filter(|right| right.client_id.eq_ignore_ascii_case(client_id))
        };
        match self.kind {
            Kind::Registry => self.only(|_| own().any(|right| right.catalog), Vec::new()),
            Kind::Repository => {
                let actions: Vec<Action> = own()
                    .filter(|right| right.names(&self.name))
                    .flat_map(Right::effective)
                    .collect();
                let all = actions.iter().map(|action| action.name().to_owned()).collect();
                self.only(|wish| actions.iter().any(|action| action.name() == wish), all)
            }
        }
    }

    /// Keeps the wished actions that are allowed; `*` on a repository asks for all there are.
    fn only(&self, allowed: impl Fn(&str) -> bool, mut all: Vec<String>) -> Self {
        let everything = self.kind == Kind::Repository && self.actions.iter().any(|action| action == "*");
        let actions = if everything {
            all.sort();
            all.dedup();
            all
        } else {
            self.actions
                .iter()
                .filter(|action| allowed(action))
                .cloned()
                .collect()
        };
        Self {
            kind: self.kind,
            name: self.name.clone(),
            actions,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Registry => "registry",
            Kind::Repository => "repository",
        };
        write!(f, "{kind}:{}:{}", self.name, self.actions.join(","))
    }
}

/// Path components of lower-case letters and digits, inside them `.`, `_` and `-`.
pub(crate) fn is_repository(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= 255
        && name
            .split('/')
            .map(str::as_bytes)
            .all(|part| edge(part.first()) && edge(part.last()) && part.iter().all(|b| inner(*b)))
}

fn is_action(action: &str) -> bool {
    action == "*" || (!action.is_empty() && action.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

// === impl Right ===

impl Right {
    pub(crate) fn check(&self) -> Result<(), String> {
        for (i, pattern) in self.repositories.iter().enumerate() {
            let name = pattern.strip_suffix("/*").unwrap_or(pattern);
            if pattern != "*" && !is_repository(name) {
                return Err(format!(
                    "repositories[{i}]: `{pattern}` is neither a repository name, `prefix/*` nor `*`"
                ));
            }
        }
        if self.repositories.is_empty() != self.actions.is_empty() {
            return Err("actions: repositories and actions are given together or not at all".to_owned());
        }
        Ok(())
    }

    fn names(&self, repository: &str) -> bool {
        self.repositories
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => repository.len() > prefix.len() && repository.starts_with(prefix),
                None => pattern == repository,
            })
    }

    /// The actions with those that Azure's roles include: who may pull may read the metadata.
    fn effective(&self) -> Vec<Action> {
        let mut actions = self.actions.clone();
        if actions.contains(&Action::Pull) && !actions.contains(&Action::MetadataRead) {
            actions.push(Action::MetadataRead);
        }
        actions
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "push",
            Self::Delete => "delete",
            Self::MetadataRead => "metadata_read",
            Self::MetadataWrite => "metadata_write",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "11111111-1111-1111-1111-111111111111";

    fn right(repositories: &[&str], actions: &[Action]) -> Right {
        let repositories = repositories.iter().map(|name| (*name).to_owned()).collect();
        Right {
            client_id: WEB.to_owned(),
            repositories,
            actions: actions.to_vec(),
            catalog: false,
        }
    }

    fn granted(scope: &str, rights: &[Right]) -> String {
        Access::parse(scope).unwrap().granted(rights, WEB).to_string()
    }

    #[test]
    fn several_scopes_are_separated_by_blanks() {
        let scopes =
            Access::parse_all("repository:shop/web:pull,push  repository:tools:pull registry:catalog:*")
                .unwrap();
        let texts: Vec<String> = scopes.iter().map(Access::to_string).collect();
        assert_eq!(
            texts,
            [
                "repository:shop/web:pull,push",
                "repository:tools:pull",
                "registry:catalog:*"
            ]
        );
    }

    #[test]
    fn wildcards_and_malformed_scopes_are_refused() {
        for scope in [
            "repository:*:pull",
            "repository:shop/*:pull",
            "repository::pull",
            "repository:Shop:pull",
            "repository:shop",
            "repository:shop:",
            "repository:/shop:pull",
            "repository:shop/../web:pull",
            "registry:other:*",
            "artifact:shop:pull",
            "pull",
        ] {
            assert!(
                Access::parse(scope).unwrap_err().starts_with("invalid scope"),
                "{scope}"
            );
        }
    }

    #[test]
    fn an_exact_right_opens_no_other_repository() {
        let rights = [right(&["shop/web"], &[Action::Pull])];
        assert_eq!(
            granted("repository:shop/web:pull", &rights),
            "repository:shop/web:pull"
        );
        for other in ["shop/webapp", "shop", "shop/web/x", "other/web"] {
            assert_eq!(
                granted(&format!("repository:{other}:pull"), &rights),
                format!("repository:{other}:")
            );
        }
    }

    #[test]
    fn a_prefix_right_opens_what_is_below_it_only() {
        let rights = [right(&["shop/*"], &[Action::Pull])];
        assert_eq!(
            granted("repository:shop/a/b:pull", &rights),
            "repository:shop/a/b:pull"
        );
        assert_eq!(granted("repository:shop:pull", &rights), "repository:shop:");
        assert_eq!(
            granted("repository:shopping/a:pull", &rights),
            "repository:shopping/a:"
        );
    }

    #[test]
    fn only_the_actions_held_are_granted_and_pull_includes_reading_metadata() {
        let rights = [right(&["a"], &[Action::Pull])];
        assert_eq!(
            granted("repository:a:pull,push,metadata_read", &rights),
            "repository:a:pull,metadata_read"
        );
        assert_eq!(
            granted("repository:a:*", &rights),
            "repository:a:metadata_read,pull"
        );
    }

    #[test]
    fn another_application_is_granted_nothing() {
        let rights = [right(&["*"], &[Action::Pull])];
        let wish = Access::parse("repository:a:pull").unwrap();
        assert!(
            wish.granted(&rights, "22222222-2222-2222-2222-222222222222")
                .actions
                .is_empty()
        );
    }

    #[test]
    fn listing_repositories_takes_a_right_of_its_own() {
        let mut rights = [right(&["*"], &[Action::Pull, Action::Push, Action::Delete])];
        assert_eq!(granted("registry:catalog:*", &rights), "registry:catalog:");
        rights[0].catalog = true;
        assert_eq!(granted("registry:catalog:*", &rights), "registry:catalog:*");
    }

    #[test]
    fn a_token_made_from_a_token_holds_no_more() {
        let held = [Access::repository("a", &["pull"])];
        let wish = Access::parse("repository:a:pull,push").unwrap();
        assert_eq!(wish.within(&held).to_string(), "repository:a:pull");
        assert_eq!(
            Access::parse("repository:b:pull")
                .unwrap()
                .within(&held)
                .to_string(),
            "repository:b:"
        );
    }
}
