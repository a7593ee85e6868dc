//! Scopes that clients request, and rights that a registry grants.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The actions on one repository that a token grants. As text it is a scope, such as `repository:shop/web:pull,push`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Access {
    #[serde(rename = "type")]
    kind: Kind,
    name: String,
    pub actions: Vec<Action>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Repository,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Pull,
    Push,
}

impl Access {
    pub fn new(repository: &str, actions: Vec<Action>) -> Self {
        Self {
            kind: Kind::Repository,
            name: repository.to_owned(),
            actions,
        }
    }

    /// Parses the value of a `scope` parameter: scopes separated by blanks.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        text.split_whitespace().map(Self::parse).collect()
    }

    fn parse(scope: &str) -> Result<Self, String> {
        let invalid = || format!("invalid scope '{scope}'");
        let resource = scope.strip_prefix("repository:").ok_or_else(invalid)?;
        let (name, actions) = resource.rsplit_once(':').ok_or_else(invalid)?;
        if !is_repository(name) {
            return Err(invalid());
        }
        let action = |text| match text {
            "pull" => Ok(Action::Pull),
            "push" => Ok(Action::Push),
            _ => Err(invalid()),
        };
        let actions = actions.split(',').map(action).collect::<Result<_, _>>()?;
        Ok(Self::new(name, actions))
    }

    /// Whether this grants all that is required.
    pub fn covers(&self, required: &Self) -> bool {
        self.name == required.name
            && required
                .actions
                .iter()
                .all(|action| self.actions.contains(action))
    }

    /// The part of this that one of the tokens' entries grants.
    pub fn within(self, granted: &[Self]) -> Self {
        let of_same = granted.iter().filter(|entry| entry.name == self.name);
        let granted: Vec<Action> = of_same.flat_map(|entry| entry.actions.clone()).collect();
        self.limited_to(&granted)
    }

    /// The part of this that the registry's rights grant to the application.
    pub fn granted(self, rights: &[Right], client_id: &str) -> Self {
        let own = rights
            .iter()
            .filter(|right| right.client_id.eq_ignore_ascii_case(client_id));
        let granted: Vec<Action> = own
            .filter(|right| right.matches(&self.name))
            .flat_map(|right| right.actions.clone())
            .collect();
        self.limited_to(&granted)
    }

    fn limited_to(mut self, granted: &[Action]) -> Self {
        self.actions.retain(|action| granted.contains(action));
        self
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "repository:{}:", self.name)?;
        for (i, action) in self.actions.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            f.write_str(match action {
                Action::Pull => "pull",
                Action::Push => "push",
            })?;
        }
        Ok(())
    }
}

/// The rights of one application in a registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Right {
    pub client_id: String,
    /// Names, `prefix/*`, or `*`.
    repositories: Vec<String>,
    actions: Vec<Action>,
}

impl Right {
    pub fn check(&self) -> Result<(), String> {
        for pattern in &self.repositories {
            let name = pattern.strip_suffix("/*").unwrap_or(pattern);
            if pattern != "*" && !is_repository(name) {
                return Err(format!(
                    "`{pattern}` is neither a repository name, `prefix/*` nor `*`"
                ));
            }
        }
        Ok(())
    }

    fn matches(&self, repository: &str) -> bool {
        let mut patterns = self.repositories.iter();
        patterns.any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => repository.starts_with(prefix),
            None => pattern == repository,
        })
    }
}

/// Path components of lower-case letters and digits, which may contain `.`, `_` and `-`.
pub fn is_repository(name: &str) -> bool {
    let is_alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.split('/').map(str::as_bytes).all(|part| {
        part.first().is_some_and(is_alphanumeric)
            && part.last().is_some_and(is_alphanumeric)
            && part.iter().all(|b| is_alphanumeric(b) || b"._-".contains(b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = "11111111-1111-1111-1111-111111111111";

    fn right(repository: &str, actions: &[Action]) -> [Right; 1] {
        [Right {
            client_id: WEB.to_owned(),
            repositories: vec![repository.to_owned()],
            actions: actions.to_vec(),
        }]
    }

    fn granted(scope: &str, rights: &[Right]) -> String {
        Access::parse(scope).unwrap().granted(rights, WEB).to_string()
    }

    #[test]
    fn several_scopes_are_separated_by_blanks() {
        let scopes = Access::parse_all("repository:shop/web:pull,push  repository:tools:pull").unwrap();
        let texts: Vec<String> = scopes.iter().map(Access::to_string).collect();
        assert_eq!(texts, ["repository:shop/web:pull,push", "repository:tools:pull"]);
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
            "registry:catalog:*",
            "pull",
        ] {
            assert!(
                Access::parse(scope).unwrap_err().starts_with("invalid scope"),
                "{scope}"
            );
        }
    }

    #[test]
    fn a_name_grants_one_repository_and_a_prefix_those_below_it() {
        for (pattern, repository, is_granted) in [
            ("shop/web", "shop/web", true),
            ("shop/web", "shop/webapp", false),
            ("shop/web", "shop", false),
            ("shop/web", "shop/web/x", false),
            ("shop/*", "shop/a/b", true),
            ("shop/*", "shop", false),
            ("shop/*", "shopping/a", false),
            ("*", "shop", true),
        ] {
            let scope = format!("repository:{repository}:pull");
            let expected = if is_granted {
                &*scope
            } else {
                scope.trim_end_matches("pull")
            };
            assert_eq!(
                granted(&scope, &right(pattern, &[Action::Pull])),
                expected,
                "{pattern}"
            );
        }
    }

    #[test]
    fn only_the_rights_of_the_application_are_granted() {
        let rights = right("a", &[Action::Pull]);
        assert_eq!(granted("repository:a:pull,push", &rights), "repository:a:pull");
        let other = "22222222-2222-2222-2222-222222222222";
        let scope = Access::parse("repository:a:pull").unwrap();
        assert_eq!(scope.granted(&rights, other).actions, []);
    }

    #[test]
    fn a_token_made_from_a_token_grants_no_more() {
        let token = [Access::new("a", vec![Action::Pull])];
        let within = |scope| Access::parse(scope).unwrap().within(&token).to_string();
        assert_eq!(within("repository:a:pull,push"), "repository:a:pull");
        assert_eq!(within("repository:b:pull"), "repository:b:");
    }
}
