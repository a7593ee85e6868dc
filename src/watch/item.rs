//! An object as an API server delivers it, decoded so that no object that an API server accepts can stop a watch.
//!
//! kube decodes the items of a list all at once, and the whole `ObjectMeta` of each: one timestamp in one object's
//! `managedFields` that is outside the range of our time type makes the list of all objects undecodable. An [`Item`]
//! decodes the metadata that this program reads and nothing else of it. Where the rest of an object cannot be decoded, the
//! item holds the error in place of the object.

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

/// The largest object that is decoded, in bytes of JSON. Objects of the kinds that are decoded whole have a few KiB.
const MAX_OBJECT: usize = 256 * 1024;
/// The longest value of a label or annotation that is kept, in bytes. A longer value is cut to one byte more, so that who
/// reads the value sees that it is too long.
pub const MAX_VALUE: usize = 4096;
/// The most labels, and the most annotations, that are kept of one object.
const MAX_ENTRIES: usize = 32;
/// The longest decoding error that is kept, in bytes: serde quotes what it did not expect.
const MAX_ERROR: usize = 512;
/// The labels and annotations that this program reads begin with one of these.
const PREFIXES: [&str; 4] = [
    "acr-pull.dev/",
    "azure.workload.identity/",
    "kubernetes.azure.com/",
    "kubernetes.io/config.",
];

/// An object, or why it could not be decoded.
#[derive(Clone, Debug)]
pub struct Item<K>(pub Result<K, Unreadable>);

/// What is known of an object that could not be decoded.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its name, namespace, uid and resource version among the rest.
    pub metadata: ObjectMeta,
    /// Why it could not be decoded.
    pub error: String,
}

/// A kind that is decoded as [`Item`]s.
pub trait Watched: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static {
    /// Decodes one object; fails only where there is no JSON object.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error>;
}

impl<K> Watched for PartialObjectMeta<K>
where
    K: Resource<DynamicType = ()> + Clone + fmt::Debug + Send + Sync + 'static,
{
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        let WithMetadata { metadata } = WithMetadata::deserialize(deserializer)?;
        Ok(Item(Ok(Self {
            types: None,
            metadata: metadata.into(),
            _phantom: std::marker::PhantomData,
        })))
    }
}

/// Decodes an object whose fields beside the metadata are those of `B`.
pub fn read<'de, D, B, K>(
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
        0..=MAX_OBJECT => serde_json::from_str(text).map_err(|error| cut(error.to_string(), MAX_ERROR)),
        length => Err(format!("it has {length} bytes of JSON, more than {MAX_OBJECT}")),
    };
    Ok(Item(match body {
        Ok(body) => Ok(assemble(metadata, body)),
        Err(error) => Err(Unreadable { metadata, error }),
    }))
}

/// The text, of no more bytes than this.
fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text.shrink_to_fit();
    text
}

// === impl Item ===

impl<'de, K: Watched> Deserialize<'de> for Item<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::read(deserializer)
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

// === metadata ===

#[derive(Deserialize)]
struct WithMetadata {
    metadata: Metadata,
}

/// The metadata that this program reads. No field has a form that an API server lets users choose freely and that could
/// fail to decode.
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
            // An object with a deletion timestamp is being deleted, whatever the timestamp says.
            deletion_timestamp: time(metadata.deletion_timestamp).or(deleted.then_some(Time(Timestamp::MAX))),
            labels: metadata.labels,
            annotations: metadata.annotations,
            ..Self::default()
        }
    }
}

/// The labels or annotations that this program reads; the others are skipped without being copied.
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
        while let Some(key) = all.next_key_seed(Key)? {
            match key {
                Some(key) if kept.len() < MAX_ENTRIES => {
                    let mut value: String = all.next_value()?;
                    // Upwards to a character's end: a value that is too long stays too long.
                    value.truncate(value.ceil_char_boundary(MAX_VALUE + 1));
                    value.shrink_to_fit();
                    kept.insert(key, value);
                }
                _ => drop(all.next_value::<IgnoredAny>()?),
            }
        }
        Ok((!kept.is_empty()).then_some(kept))
    }
}

/// A key, where it is one that is kept.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(PREFIXES
            .iter()
            .any(|prefix| key.starts_with(prefix))
            .then(|| key.to_owned()))
    }
}

#[cfg(test)]
mod tests;
