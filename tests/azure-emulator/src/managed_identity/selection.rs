//! Which of the world's managed identities a request means.

use crate::endpoint::Endpoint;
use crate::http::Form;
use crate::world::{ManagedIdentity, World};

/// How a request names an identity.
#[derive(Debug, PartialEq)]
pub(crate) enum Selector {
    ClientId(String),
    ObjectId(String),
    ResourceId(String),
    /// It names more than one way.
    Ambiguous,
}

/// Why there is no identity for a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum NotFound {
    /// The one named, or any at all.
    Unknown,
    /// None is named, and there are several.
    SeveralToChooseFrom,
    /// Named in more than one way.
    NamedTwice,
}

// === impl Selector ===

impl Selector {
    /// Reads the query by the parameter names that the endpoint knows; others it overlooks, as the real ones do.
    pub(crate) fn of(endpoint: Endpoint, query: &Form) -> Option<Self> {
        let (object_ids, resource_ids): (&[&str], &[&str]) = match endpoint {
            Endpoint::AppServiceToken => (&["principal_id", "object_id"], &["mi_res_id"]),
            _ => (&["object_id"], &["msi_res_id", "mi_res_id"]),
        };
        let first = |names: &[&str]| {
            names
                .iter()
                .find_map(|name| super::given(query, name).map(str::to_owned))
        };
        let mut named = [
            first(&["client_id"]).map(Self::ClientId),
            first(object_ids).map(Self::ObjectId),
            first(resource_ids).map(Self::ResourceId),
        ]
        .into_iter()
        .flatten();
        match (named.next(), named.next()) {
            (_, Some(_)) => Some(Self::Ambiguous),
            (one, None) => one,
        }
    }

    pub(crate) fn client_id(&self) -> Option<&str> {
        match self {
            Self::ClientId(id) => Some(id),
            _ => None,
        }
    }

    pub(crate) fn object_id(&self) -> Option<&str> {
        match self {
            Self::ObjectId(id) => Some(id),
            _ => None,
        }
    }

    pub(crate) fn resource_id(&self) -> Option<&str> {
        match self {
            Self::ResourceId(id) => Some(id),
            _ => None,
        }
    }
}

/// The identity that is named; else the system-assigned one; else, of IMDS alone, the only one there is.
pub(crate) fn find<'a>(
    world: &'a World,
    endpoint: Endpoint,
    selector: Option<&Selector>,
) -> Result<&'a ManagedIdentity, NotFound> {
    let all = &world.spec.managed_identities;
    let by = |is: &dyn Fn(&ManagedIdentity) -> bool| all.iter().find(|one| is(one)).ok_or(NotFound::Unknown);
    match selector {
        Some(Selector::ClientId(id)) => by(&|one| one.client_id.eq_ignore_ascii_case(id)),
        Some(Selector::ObjectId(id)) => by(&|one| one.object_id().eq_ignore_ascii_case(id)),
        Some(Selector::ResourceId(id)) => by(&|one| {
            one.resource_id
                .as_ref()
                .is_some_and(|known| known.eq_ignore_ascii_case(id))
        }),
        Some(Selector::Ambiguous) => Err(NotFound::NamedTwice),
        None => by(&|one| one.system_assigned).or(match &all[..] {
            [only] if endpoint == Endpoint::ImdsToken => Ok(only),
            [] | [_] => Err(NotFound::Unknown),
            _ => Err(NotFound::SeveralToChooseFrom),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(endpoint: Endpoint, query: &str) -> Option<Selector> {
        Selector::of(endpoint, &Form::parse(query.as_bytes()))
    }

    #[test]
    fn each_endpoint_has_parameter_names_of_its_own_and_overlooks_those_of_the_other() {
        let id = || "x".to_owned();
        for (endpoint, query, expected) in [
            (Endpoint::ImdsToken, "client_id=x", Some(Selector::ClientId(id()))),
            (Endpoint::ImdsToken, "object_id=x", Some(Selector::ObjectId(id()))),
            (
                Endpoint::ImdsToken,
                "msi_res_id=x",
                Some(Selector::ResourceId(id())),
            ),
            (
                Endpoint::ImdsToken,
                "mi_res_id=x",
                Some(Selector::ResourceId(id())),
            ),
            (Endpoint::ImdsToken, "principal_id=x", None),
            (
                Endpoint::AppServiceToken,
                "principal_id=x",
                Some(Selector::ObjectId(id())),
            ),
            (
                Endpoint::AppServiceToken,
                "mi_res_id=x",
                Some(Selector::ResourceId(id())),
            ),
            (Endpoint::AppServiceToken, "msi_res_id=x", None),
            (Endpoint::ImdsToken, "client_id=", None),
            (
                Endpoint::ImdsToken,
                "client_id=x&object_id=x",
                Some(Selector::Ambiguous),
            ),
        ] {
            assert_eq!(selector(endpoint, query), expected, "{endpoint:?} {query}");
        }
    }
}
