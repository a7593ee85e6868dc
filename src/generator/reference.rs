//! References to generators: `contoso` or `ClusterGenerator/contoso`.

use crate::names::ObjectName;
use std::fmt;

/// The kinds of generators that can be referenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An `ACRAccessToken` in the namespace of the Pod.
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
