//! One object as the API server delivers it, decoded so that no object that the API server accepts can stop a watch.
//!
//! kube decodes all items of a list together, and the whole `ObjectMeta` of each item: one timestamp in the
//! `managedFields` of one object that is outside the range of our time type makes the whole list undecodable. An
//! [`Item`] decodes only the metadata that this program reads. If the rest of an object cannot be decoded, the item
//! holds the error instead of the object.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{
    Resource,
    core::{ObjectMeta, PartialObjectMeta},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, fmt};

/// The largest object that is decoded, in bytes of JSON. Objects of the kinds that are decoded completely have a few
/// KiB.
const MAX_OBJECT_BYTES: usize = 256 * 1024;
/// The longest value of a label or annotation that is kept, in bytes. A longer value is truncated to one byte more, so
/// that its reader can see that it is too long.
pub const MAX_VALUE_BYTES: usize = 4096;
/// The most labels, and the most annotations, that are kept per object.
const MAX_ENTRIES: usize = 32;
/// The longest decoding error that is kept, in bytes: serde quotes the unexpected value.
const MAX_ERROR_BYTES: usize = 512;
/// The prefixes of the labels and annotations that this program reads.
const KEY_PREFIXES: [&str; 4] = [
    "acr-pull.dev/",
    "azure.workload.identity/",
    "kubernetes.azure.com/",
    "kubernetes.io/config.",
];

/// An object, or the reason why it could not be decoded.
#[derive(Clone, Debug)]
pub struct Item<K>(pub Result<K, Unreadable>);

impl<'de, K: Watched> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::decode(deserializer)
    }
}

impl<K: Resource> Resource for Item<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

/// An object that could not be decoded.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its metadata, which includes name, namespace, uid and resource version.
    pub metadata: ObjectMeta,
    /// Why it could not be decoded.
    pub error: String,
}

/// A kind that is decoded as [`Item`]s.
pub trait Watched: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static {
    /// Decodes one object. Fails only if the input is not a JSON object.
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error>;
}

impl<K> Watched for PartialObjectMeta<K>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
{
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        let WithMetadata { metadata } = WithMetadata::deserialize(deserializer)?;
        Ok(Item(Ok(Self {
            types: None,
            metadata: metadata.into(),
            _phantom: std::marker::PhantomData,
        })))
    }
}

/// Decodes an object whose fields other than the metadata are those of `B`.
pub fn decode<'de, D, B, K>(
    deserializer: D,
    assemble: impl FnOnce(ObjectMeta, B) -> K,
) -> Result<Item<K>, D::Error>
where
    D: Deserializer<'de>,
    B: DeserializeOwned,
{
    let text = Box::<RawValue>::deserialize(deserializer)?;
    let text = text.get();
    let WithMetadata { metadata } = serde_json::from_str(text).map_err(D::Error::custom)?;
    let metadata = ObjectMeta::from(metadata);
    let body = match text.len() {
        0..=MAX_OBJECT_BYTES => {
            serde_json::from_str(text).map_err(|error| truncated(error.to_string(), MAX_ERROR_BYTES))
        }
        length => Err(format!(
            "it has {length} bytes of JSON, more than {MAX_OBJECT_BYTES}"
        )),
    };
    Ok(Item(match body {
        Ok(body) => Ok(assemble(metadata, body)),
        Err(error) => Err(Unreadable { metadata, error }),
    }))
}

fn truncated(mut text: String, max_bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(max_bytes));
    text.shrink_to_fit();
    text
}

#[derive(Deserialize)]
struct WithMetadata {
    metadata: Metadata,
}

/// The metadata that this program reads. The API server enforces the type of each field, so decoding cannot fail.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<String>,
    deletion_timestamp: Option<String>,
    #[serde(default, deserialize_with = "entries")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "entries")]
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        let time = |text: Option<String>| text?.parse::<Timestamp>().ok().map(Time);
        let deleted = metadata.deletion_timestamp.is_some();
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: time(metadata.creation_timestamp),
            // An object with a deletion timestamp is being deleted, even if the timestamp cannot be parsed.
            deletion_timestamp: time(metadata.deletion_timestamp).or(deleted.then_some(Time(Timestamp::MAX))),
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..Self::default()
        }
    }
}

/// Decodes the labels or annotations that this program reads, and skips the others without copying them.
fn entries<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    deserializer.deserialize_any(Entries)
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Option<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("labels or annotations")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
        let mut kept = BTreeMap::new();
        while let Some(key) = all.next_key_seed(KeptKey)? {
            match key {
                Some(key) if kept.len() < MAX_ENTRIES => {
                    let mut value: String = all.next_value()?;
                    // Rounded up to the end of a character, so that a value that is too long stays too long.
                    value.truncate(value.ceil_char_boundary(MAX_VALUE_BYTES + 1));
                    value.shrink_to_fit();
                    kept.insert(key, value);
                }
                _ => drop(all.next_value::<IgnoredAny>()?),
            }
        }
        Ok((!kept.is_empty()).then_some(kept))
    }
}

/// Decodes a key; the result is `None` if the entry is skipped.
struct KeptKey;

impl<'de> DeserializeSeed<'de> for KeptKey {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeptKey {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(KEY_PREFIXES
            .iter()
            .any(|prefix| key.starts_with(prefix))
            .then(|| key.to_owned()))
    }
}

#[cfg(test)]
mod tests;
