//! References to generators: `contoso`, or `ClusterGenerator/contoso`.

use std::fmt;

/// The kinds that can be referenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One of the Pod's namespace.
    AccessToken,
    /// One for all namespaces.
    ClusterGenerator,
}

/// What an annotation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference<'a> {
    /// The kind.
    pub kind: Kind,
    /// The name.
    pub name: &'a str,
}

impl Kind {
    /// The kind as Kubernetes spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::AccessToken => "ACRAccessToken",
            Kind::ClusterGenerator => "ClusterGenerator",
        }
    }
}

impl fmt::Display for Reference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.name)
    }
}
