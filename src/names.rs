//! The names of Kubernetes objects, of hosts and of Azure's applications: one grammar for each, and types for names
//! that follow it. Names become part of API server paths and of commands in messages, so text of users and of flags is
//! parsed before it is used as a name.
//! Source: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.

use crate::{start_error::StartError, text::Text, untrusted::UntrustedText};
use data_encoding::HEXLOWER;
use kube::{Resource, core::ObjectMeta, runtime::reflector::ObjectRef};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IntoDeserializer},
};
use std::{borrow::Borrow, fmt, ops::Deref, sync::Arc};

/// The maximum length of the name of an object or a host, in bytes.
pub const MAX_NAME_LENGTH: usize = 253;
/// The maximum length of the name of a namespace, and of one label of the name of a host, in bytes.
const MAX_LABEL_LENGTH: usize = 63;

/// The name of a namespace, which is a DNS label (RFC 1123). Clones share the text: an admission clones its names
/// several times.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceName(Arc<str>);

impl NamespaceName {
    /// The name, if it is valid.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= MAX_LABEL_LENGTH && is_label(text)).then(|| Self(text.into()))
    }

    /// The valid names in the value of a flag, without empty ones.
    pub fn parse_flag(flag: &str, values: &[String]) -> Result<Vec<Self>, StartError> {
        let values = values.iter().filter(|value| !value.is_empty());
        let parse = |value: &String| {
            let message = || format!("{flag}: {value:?} is not a valid namespace name");
            Self::new(value).ok_or_else(|| StartError::Flag(message()))
        };
        values.map(parse).collect()
    }
}

/// The name of an object other than a namespace, such as a generator, a service account or a Secret. It is a DNS
/// subdomain (RFC 1123), whose labels may have any length. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(Arc<str>);

impl ObjectName {
    /// The name, if it is valid.
    pub fn new(text: &str) -> Option<Self> {
        (text.len() <= MAX_NAME_LENGTH && text.split('.').all(is_label)).then(|| Self(text.into()))
    }

    /// The service account of a Pod that names none.
    pub fn default_service_account() -> Self {
        Self("default".into())
    }

    /// A name that consists of a prefix, other names and a hash, joined by `-`. The names are shortened if the result
    /// would be too long.
    pub fn joined(prefix: &'static str, names: &[&Self], hash: &[u8]) -> Self {
        let mut name = prefix.to_owned();
        for part in names {
            name.push('-');
            name.push_str(part);
        }
        // Names are ASCII, so each byte is a character.
        name.truncate(MAX_NAME_LENGTH - 1 - 2 * hash.len());
        name.truncate(name.trim_end_matches(['-', '.']).len());
        name.push('-');
        HEXLOWER.encode_append(hash, &mut name);
        Self(name.into())
    }
}

/// Implements the conversions to text, serialization and deserialization for a type of names.
macro_rules! text {
    ($name:ty, $description:literal) => {
        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, text: &str) -> bool {
                **self == *text
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, text: &&str) -> bool {
                **self == **text
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Text::deserialize(deserializer)?;
                Self::new(&text).ok_or_else(|| {
                    let text = UntrustedText::quoted(&text);
                    D::Error::custom(format!(concat!("{} is not a valid ", $description), text))
                })
            }
        }
    };
}

text!(NamespaceName, "namespace name");
text!(ObjectName, "object name");

/// Deserializes a name that may be absent, which `null` and an empty text stand for too.
pub fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ObjectName>, D::Error> {
    match Option::<Text>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => ObjectName::deserialize(text.into_deserializer()).map(Some),
        _ => Ok(None),
    }
}

/// The namespace and the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace of the object.
    pub namespace: NamespaceName,
    /// The name of the object.
    pub name: ObjectName,
}

impl NamespacedName {
    /// The namespace and the name, if both are valid.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        Some(Self {
            namespace: NamespaceName::new(namespace)?,
            name: ObjectName::new(name)?,
        })
    }

    /// The namespace and the name of an object. `None` for an object that is not in a namespace.
    pub fn of(object: &ObjectMeta) -> Option<Self> {
        Self::new(object.namespace.as_deref()?, object.name.as_deref()?)
    }

    /// The namespace and the name of a referenced object. `None` for an object that is not in a namespace.
    pub fn of_reference<K: Resource<DynamicType = ()>>(reference: &ObjectRef<K>) -> Option<Self> {
        Self::new(reference.namespace.as_deref()?, &reference.name)
    }

    /// Another name in the same namespace.
    pub fn sibling(&self, name: &ObjectName) -> Self {
        Self {
            namespace: self.namespace.clone(),
            name: name.clone(),
        }
    }

    /// The reference by which a store finds the object.
    pub fn reference<K: Resource<DynamicType = ()>>(&self) -> ObjectRef<K> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Whether `name` is the DNS name of a host: labels of letters of either case, digits and `-`, separated by dots.
pub fn is_dns_name(name: &str) -> bool {
    let is_label =
        |label: &str| label.len() <= MAX_LABEL_LENGTH && is_label_of(label, u8::is_ascii_alphanumeric);
    name.len() <= MAX_NAME_LENGTH && name.split('.').all(is_label)
}

/// Whether `text` is a GUID in the form that Azure writes.
pub fn is_guid(text: &str) -> bool {
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12])
        && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Whether `text` is a label of a Kubernetes name, of any length.
fn is_label(text: &str) -> bool {
    is_label_of(text, |b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Whether `text` consists of alphanumeric characters and `-`, and neither starts nor ends with `-`.
fn is_label_of(text: &str, is_alphanumeric: impl Fn(&u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(&is_alphanumeric)
        && bytes.last().is_some_and(&is_alphanumeric)
        && bytes.iter().all(|b| is_alphanumeric(b) || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn a_namespace_is_a_label_and_an_object_is_a_subdomain() {
        let label = "a".repeat(63);
        let longest = format!("{}.{}", "a".repeat(126), "b".repeat(126));
        for (text, is_namespace, is_object) in [
            ("team-a", true, true),
            ("0", true, true),
            (&label, true, true),
            (&format!("{label}a"), false, true),
            (&longest, false, true),
            (&format!("{longest}b"), false, false),
            ("a.b", false, true),
            ("a..b", false, false),
            ("a.-b", false, false),
            (".a", false, false),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("A", false, false),
            ("a_b", false, false),
            ("a/b", false, false),
            ("a\n", false, false),
            ("\u{e4}", false, false),
        ] {
            assert_eq!(NamespaceName::new(text).is_some(), is_namespace, "{text:?}");
            assert_eq!(ObjectName::new(text).is_some(), is_object, "{text:?}");
            let decoded = serde_json::from_value::<NamespaceName>(json!(text));
            assert_eq!(decoded.is_ok(), is_namespace, "{text:?}");
        }
    }

    #[test]
    fn a_flag_with_an_invalid_namespace_is_refused_by_its_name() {
        let parse = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
            NamespaceName::parse_flag("--namespaces", &values)
        };
        assert_eq!(parse(&["b", "", "a"]).unwrap(), ["b", "a"]);
        for invalid in ["A", "a.b", "*", "a b", "-a", &"a".repeat(64)] {
            let error = parse(&["a", invalid]).unwrap_err().to_string();
            assert!(
                error.contains("--namespaces") && error.contains(invalid),
                "{error}"
            );
        }
    }

    #[test]
    fn an_absent_an_empty_and_an_invalid_name_are_distinguished() {
        let decode = |value: serde_json::Value| optional(value);
        assert_eq!(decode(json!("app")).unwrap().unwrap(), "app");
        assert_eq!(decode(json!(null)).unwrap(), None);
        assert_eq!(decode(json!("")).unwrap(), None);
        let error = decode(json!("../x")).unwrap_err();
        assert_eq!(error.to_string(), r#""../x" is not a valid object name"#);
    }

    #[test]
    fn a_host_name_has_labels_of_at_most_63_characters_of_either_case() {
        for valid in ["contoso.azurecr.io", "Contoso.AzureCR.io", &"a".repeat(63)] {
            assert!(is_dns_name(valid), "{valid}");
        }
        for invalid in ["", ".", "a.", "-a.b", "a:8443", "a/b", "a_b", &"a".repeat(64)] {
            assert!(!is_dns_name(invalid), "{invalid}");
        }
    }

    #[test]
    fn a_joined_name_is_cut_before_a_dot_or_a_dash() {
        for length in 200..=250 {
            for separator in [".", "-"] {
                let name = ObjectName::new(&format!("{}{separator}b", "a".repeat(length))).unwrap();
                let joined = ObjectName::joined("acr-pull", &[&name, &name], &[0; 5]);
                assert_eq!(ObjectName::new(&joined), Some(joined.clone()));
                assert!(!joined.contains("--"), "{joined}");
            }
        }
    }

    const NAME: &str = "[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?){0,2}";

    proptest! {
        #[test]
        fn a_joined_name_is_valid_and_ends_with_the_hash(names in prop::collection::vec(NAME, 0..3), hash: [u8; 5]) {
            let names: Vec<_> = names.iter().map(|name| ObjectName::new(name).unwrap()).collect();
            let joined = ObjectName::joined("acr-pull", &names.iter().collect::<Vec<_>>(), &hash);
            prop_assert_eq!(ObjectName::new(&joined), Some(joined.clone()));
            let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert!(joined.ends_with(&format!("-{hash}")) && joined.starts_with("acr-pull-"), "{}", joined);
        }
    }
}
