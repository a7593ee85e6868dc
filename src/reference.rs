//! References to generators: `contoso` or `ClusterGenerator/contoso`.

use crate::names::ObjectName;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The kinds of generators that can be referenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
pub enum Kind {
    /// An `ACRAccessToken` in the namespace of the Pod.
    #[serde(rename = "ACRAccessToken")]
    AccessToken,
    /// A `ClusterGenerator`, for the Pods of all namespaces.
    ClusterGenerator,
}

impl Kind {
    /// The kind, as in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::AccessToken => "ACRAccessToken",
            Kind::ClusterGenerator => "ClusterGenerator",
        }
    }
}

/// A reference in a Pod's annotation or in a Namespace's label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The kind of the generator.
    pub kind: Kind,
    /// The name of the generator.
    pub name: ObjectName,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kind_is_serialized_as_it_is_printed() {
        for kind in [Kind::AccessToken, Kind::ClusterGenerator] {
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
        }
    }
}
