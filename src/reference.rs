//! References to generators: `contoso` or `ClusterGenerator/contoso`.

use crate::names::{NamespaceName, ObjectName};
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

impl Reference {
    /// The command that corrects a field of the `ACRAccessToken`'s spec, for a Pod in `namespace`.
    pub fn patch_command(&self, namespace: &NamespaceName, field: SpecField) -> String {
        let (name, field) = (&self.name, field.json());
        match self.kind {
            Kind::AccessToken => format!(
                "kubectl patch acraccesstoken {name} --namespace {namespace} --type merge --patch '{{\"spec\":{{{field}}}}}'"
            ),
            Kind::ClusterGenerator => format!(
                "kubectl patch clustergenerator {name} --type merge --patch \
                 '{{\"spec\":{{\"generator\":{{\"acrAccessTokenSpec\":{{{field}}}}}}}}}'"
            ),
        }
    }
}

/// A field that a command corrects.
#[derive(Clone, Copy, Debug)]
pub enum SpecField {
    /// The login server of the registry.
    Registry,
    /// The repositories.
    Scope,
    /// The Entra tenant.
    TenantId,
}

impl SpecField {
    /// The field, with a placeholder as its value.
    fn json(self) -> &'static str {
        match self {
            SpecField::Registry => r#""registry":"REGISTRY.azurecr.io""#,
            SpecField::Scope => r#""scope":"repository:REPOSITORY:pull""#,
            SpecField::TenantId => r#""tenantId":"TENANT_ID""#,
        }
    }
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
    fn a_command_changes_the_fields_where_the_kind_has_them() {
        let namespace = NamespaceName::new("team-a").unwrap();
        let command = |kind| {
            let name = ObjectName::new("contoso").unwrap();
            Reference { kind, name }.patch_command(&namespace, SpecField::Scope)
        };
        assert_eq!(
            command(Kind::AccessToken),
            "kubectl patch acraccesstoken contoso --namespace team-a --type merge --patch \
             '{\"spec\":{\"scope\":\"repository:REPOSITORY:pull\"}}'"
        );
        assert_eq!(
            command(Kind::ClusterGenerator),
            "kubectl patch clustergenerator contoso --type merge --patch \
             '{\"spec\":{\"generator\":{\"acrAccessTokenSpec\":{\"scope\":\"repository:REPOSITORY:pull\"}}}}'"
        );
    }

    #[test]
    fn a_kind_is_serialized_as_it_is_printed() {
        for kind in [Kind::AccessToken, Kind::ClusterGenerator] {
            assert_eq!(serde_json::to_value(kind).unwrap(), json!(kind.as_str()));
        }
    }
}
