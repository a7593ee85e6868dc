//! Reads the fields of a review that a decision needs, and skips all others.
//!
//! One visitor reads all objects and lists, where a derived implementation for each object would be three times as much
//! code. Most of that code is not in the caches of the processor when a review arrives, so its size counts.

use super::{Annotations, Labels, PodView};
use crate::{
    names::{self, NamespaceName, ObjectName},
    text::Text,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// The maximum number of containers of one kind, and of volumes. Long lists are refused early, and the memory for their
/// images is less than twice the size of the body.
const MAX_ITEMS: usize = 1_000;
/// The maximum number of pull secrets that a Pod already has.
const MAX_IMAGE_PULL_SECRETS: usize = 128;

/// The fields of a review. A field with the value `null` is like a field that is absent.
#[derive(Default)]
pub struct Fields<'a> {
    pub api_version: Option<Text<'a>>,
    pub kind: Option<Text<'a>>,
    pub uid: Option<Text<'a>>,
    pub namespace: Option<NamespaceName>,
    pub operation: Option<Text<'a>>,
    pub group: Option<Text<'a>>,
    pub resource: Option<Text<'a>>,
    pub sub_resource: Option<Text<'a>>,
    pub dry_run: Option<bool>,
    pub pod: PodView<'a>,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(Place::Review, deserializer)
    }
}

impl<'de> Deserialize<'de> for PodView<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(read(Place::Pod, deserializer)?.pod)
    }
}

fn read<'de, D: Deserializer<'de>>(place: Place, deserializer: D) -> Result<Fields<'de>, D::Error> {
    let mut fields = Fields::default();
    let reader = Reader {
        place,
        fields: &mut fields,
    };
    reader.deserialize(deserializer)?;
    Ok(fields)
}

/// The objects with fields that a decision needs, and the lists of such objects.
#[derive(Clone, Copy)]
enum Place {
    Review,
    Request,
    Resource,
    Pod,
    Metadata,
    Annotations,
    Labels,
    Spec,
    ImagePullSecrets,
    ImagePullSecret,
    Containers,
    Container,
    Volumes,
    Volume,
    ImageVolume,
}

impl Place {
    /// The items of a list.
    fn items(self) -> Option<Items> {
        let (place, plural, max) = match self {
            Self::ImagePullSecrets => (Self::ImagePullSecret, "imagePullSecrets", MAX_IMAGE_PULL_SECRETS),
            Self::Containers => (Self::Container, "containers of one kind", MAX_ITEMS),
            Self::Volumes => (Self::Volume, "volumes", MAX_ITEMS),
            _ => return None,
        };
        Some(Items { place, plural, max })
    }
}

/// The items of a list.
struct Items {
    place: Place,
    /// The name of the items in messages.
    plural: &'static str,
    /// The maximum number of items.
    max: usize,
}

/// Reads the object or the list at a place.
struct Reader<'r, 'de> {
    place: Place,
    fields: &'r mut Fields<'de>,
}

impl<'de> Reader<'_, 'de> {
    fn at(&mut self, place: Place) -> Reader<'_, 'de> {
        Reader {
            place,
            fields: self.fields,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.items() {
            Some(Items { plural, .. }) => write!(f, "a list of {plural}"),
            None => f.write_str("an object"),
        }
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        let pod = &mut self.fields.pod;
        // An empty object or list is not absent: the patch adds to it.
        match self.place {
            Place::Annotations => pod.annotations = Some(Annotations::default()),
            Place::Labels => pod.labels = Some(Labels::default()),
            Place::ImagePullSecrets => pod.image_pull_secrets = Some(Vec::new()),
            _ => {}
        }
        match self.place.items() {
            Some(_) => deserializer.deserialize_seq(self),
            None => deserializer.deserialize_map(self),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        let Some(Items { place, plural, max }) = self.place.items() else {
            return Ok(());
        };
        let mut number = 0;
        while list.next_element_seed(self.at(place))?.is_some() {
            number += 1;
            if number > max {
                return Err(Error::custom(format_args!(
                    "the Pod has more than {max} {plural}"
                )));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Text<'_>>()? {
            let inner = match (self.place, &*key) {
                (Place::Review, "request") => Place::Request,
                (Place::Request, "resource") => Place::Resource,
                (Place::Request, "object") => Place::Pod,
                (Place::Pod, "metadata") => Place::Metadata,
                (Place::Pod, "spec") => Place::Spec,
                (Place::Metadata, "annotations") => Place::Annotations,
                (Place::Metadata, "labels") => Place::Labels,
                (Place::Spec, "imagePullSecrets") => Place::ImagePullSecrets,
                (Place::Spec, "containers" | "initContainers" | "ephemeralContainers") => Place::Containers,
                (Place::Spec, "volumes") => Place::Volumes,
                (Place::Volume, "image") => Place::ImageVolume,
                (Place::Container, "image") | (Place::ImageVolume, "reference") => {
                    let image: Option<_> = map.next_value()?;
                    self.fields.pod.images.extend(image);
                    continue;
                }
                (Place::ImagePullSecret, "name") => {
                    let name: Option<_> = map.next_value()?;
                    let names = &mut self.fields.pod.image_pull_secrets;
                    names.get_or_insert_default().extend(name);
                    continue;
                }
                (Place::Request, "namespace") => {
                    self.fields.namespace = map.next_value()?;
                    continue;
                }
                (Place::Request, "dryRun") => {
                    self.fields.dry_run = map.next_value()?;
                    continue;
                }
                (Place::Spec, "serviceAccountName") => {
                    self.fields.pod.service_account_name = map.next_value::<OptionalName>()?.0;
                    continue;
                }
                (place, key) => {
                    match self.fields.text(place, key) {
                        Some(text) => *text = map.next_value()?,
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                    continue;
                }
            };
            map.next_value_seed(self.at(inner))?;
        }
        Ok(())
    }
}

impl<'a> Fields<'a> {
    /// The field for the text of this key.
    fn text(&mut self, place: Place, key: &str) -> Option<&mut Option<Text<'a>>> {
        let pod = &mut self.pod;
        Some(match (place, key) {
            (Place::Review, "apiVersion") => &mut self.api_version,
            (Place::Review, "kind") => &mut self.kind,
            (Place::Request, "uid") => &mut self.uid,
            (Place::Request, "operation") => &mut self.operation,
            (Place::Request, "subResource") => &mut self.sub_resource,
            (Place::Resource, "group") => &mut self.group,
            (Place::Resource, "resource") => &mut self.resource,
            (Place::Metadata, "name") => &mut pod.name,
            (Place::Metadata, "generateName") => &mut pod.generate_name,
            (Place::Annotations, "acr-pull.dev/access-token") => &mut pod.annotations.as_mut()?.access_token,
            (Place::Annotations, "acr-pull.dev/pull-secrets") => &mut pod.annotations.as_mut()?.pull_secrets,
            (Place::Annotations, "kubernetes.io/config.mirror") => &mut pod.annotations.as_mut()?.mirror,
            (Place::Labels, "acr-pull.dev/injected") => &mut pod.labels.as_mut()?.injected,
            _ => return None,
        })
    }
}

/// The name of an object, unless it is absent or empty.
#[derive(Deserialize)]
#[serde(transparent)]
struct OptionalName(#[serde(deserialize_with = "names::optional")] Option<ObjectName>);
