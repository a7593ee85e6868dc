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

/// The maximum number of containers of one kind, and of volumes. Without it, a small body could take much memory, because
/// an image of some bytes of JSON takes several times as much memory.
const MAX_ITEMS: usize = 1_000;
/// The maximum number of pull secrets that a Pod already has.
const MAX_IMAGE_PULL_SECRETS: usize = 128;

/// The fields of a review.
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

    /// Whether `null` means that the object or the list is absent. Elsewhere `null` is invalid.
    fn is_nullable(self) -> bool {
        matches!(
            self,
            Self::Pod
                | Self::Annotations
                | Self::Labels
                | Self::ImagePullSecrets
                | Self::Containers
                | Self::Volumes
                | Self::ImageVolume
        )
    }
}

/// The fields that are read.
#[derive(Clone, Copy)]
enum Field {
    ApiVersion,
    Kind,
    Request,
    Uid,
    Namespace,
    Operation,
    Resource,
    ResourceGroup,
    ResourceName,
    SubResource,
    DryRun,
    Object,
    Metadata,
    Spec,
    Name,
    GenerateName,
    Annotations,
    Labels,
    AccessToken,
    PullSecrets,
    Mirror,
    Injected,
    ServiceAccountName,
    ImagePullSecrets,
    ImagePullSecretName,
    Containers,
    InitContainers,
    EphemeralContainers,
    Image,
    Volumes,
    ImageVolume,
    ImageReference,
}

impl Field {
    /// The field with this key in the object at this place, if a decision needs the field.
    fn at(place: Place, key: &str) -> Option<Self> {
        Some(match (place, key) {
            (Place::Review, "apiVersion") => Self::ApiVersion,
            (Place::Review, "kind") => Self::Kind,
            (Place::Review, "request") => Self::Request,
            (Place::Request, "uid") => Self::Uid,
            (Place::Request, "namespace") => Self::Namespace,
            (Place::Request, "operation") => Self::Operation,
            (Place::Request, "resource") => Self::Resource,
            (Place::Request, "subResource") => Self::SubResource,
            (Place::Request, "dryRun") => Self::DryRun,
            (Place::Request, "object") => Self::Object,
            (Place::Resource, "group") => Self::ResourceGroup,
            (Place::Resource, "resource") => Self::ResourceName,
            (Place::Pod, "metadata") => Self::Metadata,
            (Place::Pod, "spec") => Self::Spec,
            (Place::Metadata, "name") => Self::Name,
            (Place::Metadata, "generateName") => Self::GenerateName,
            (Place::Metadata, "annotations") => Self::Annotations,
            (Place::Metadata, "labels") => Self::Labels,
            (Place::Annotations, "acr-pull.dev/access-token") => Self::AccessToken,
            (Place::Annotations, "acr-pull.dev/pull-secrets") => Self::PullSecrets,
            (Place::Annotations, "kubernetes.io/config.mirror") => Self::Mirror,
            (Place::Labels, "acr-pull.dev/injected") => Self::Injected,
            (Place::Spec, "serviceAccountName") => Self::ServiceAccountName,
            (Place::Spec, "imagePullSecrets") => Self::ImagePullSecrets,
            (Place::Spec, "containers") => Self::Containers,
            (Place::Spec, "initContainers") => Self::InitContainers,
            (Place::Spec, "ephemeralContainers") => Self::EphemeralContainers,
            (Place::Spec, "volumes") => Self::Volumes,
            (Place::ImagePullSecret, "name") => Self::ImagePullSecretName,
            (Place::Container, "image") => Self::Image,
            (Place::Volume, "image") => Self::ImageVolume,
            (Place::ImageVolume, "reference") => Self::ImageReference,
            _ => return None,
        })
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

    fn read<A: MapAccess<'de>>(&mut self, field: Field, map: &mut A) -> Result<(), A::Error> {
        let fields = &mut *self.fields;
        let pod = &mut fields.pod;
        let place = match field {
            Field::Request => Place::Request,
            Field::Resource => Place::Resource,
            Field::Object => Place::Pod,
            Field::Metadata => Place::Metadata,
            Field::Annotations => Place::Annotations,
            Field::Labels => Place::Labels,
            Field::Spec => Place::Spec,
            Field::ImagePullSecrets => Place::ImagePullSecrets,
            Field::Containers | Field::InitContainers | Field::EphemeralContainers => Place::Containers,
            Field::Volumes => Place::Volumes,
            Field::ImageVolume => Place::ImageVolume,
            Field::Uid => return required(&mut fields.uid, map),
            Field::ApiVersion => return required(&mut fields.api_version, map),
            Field::Kind => return required(&mut fields.kind, map),
            Field::Namespace => return required(&mut fields.namespace, map),
            Field::Operation => return required(&mut fields.operation, map),
            Field::ResourceGroup => return required(&mut fields.group, map),
            Field::ResourceName => return required(&mut fields.resource, map),
            Field::DryRun => return required(&mut fields.dry_run, map),
            Field::SubResource => return optional(&mut fields.sub_resource, map),
            Field::Name => return optional(&mut pod.name, map),
            Field::GenerateName => return optional(&mut pod.generate_name, map),
            Field::AccessToken => {
                return optional(&mut pod.annotations.get_or_insert_default().access_token, map);
            }
            Field::PullSecrets => {
                return optional(&mut pod.annotations.get_or_insert_default().pull_secrets, map);
            }
            Field::Mirror => return optional(&mut pod.annotations.get_or_insert_default().mirror, map),
            Field::Injected => return optional(&mut pod.labels.get_or_insert_default().injected, map),
            Field::ServiceAccountName => {
                pod.service_account_name = map.next_value::<OptionalName>()?.0;
                return Ok(());
            }
            Field::ImagePullSecretName => {
                let name = map.next_value()?;
                pod.image_pull_secrets.get_or_insert_default().push(name);
                return Ok(());
            }
            Field::Image | Field::ImageReference => {
                pod.images.extend(map.next_value::<Option<_>>()?);
                return Ok(());
            }
        };
        map.next_value_seed(self.at(place))
    }
}

/// Reads a field that must not be `null`.
fn required<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    field: &mut Option<T>,
    map: &mut A,
) -> Result<(), A::Error> {
    *field = Some(map.next_value()?);
    Ok(())
}

/// Reads a text, for which `null` may stand.
fn optional<'de, A: MapAccess<'de>>(field: &mut Option<Text<'de>>, map: &mut A) -> Result<(), A::Error> {
    *field = map.next_value()?;
    Ok(())
}

impl<'de> DeserializeSeed<'de> for Reader<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.place.is_nullable() {
            deserializer.deserialize_option(self)
        } else {
            self.visit_some(deserializer)
        }
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
        let mut read = 0;
        loop {
            let key = Key {
                place: self.place,
                read: &mut read,
            };
            match map.next_key_seed(key)? {
                None => return Ok(()),
                Some(Some(field)) => self.read(field, &mut map)?,
                Some(None) => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
    }
}

/// Finds the field with a key, and refuses the second field with the same key.
struct Key<'r> {
    place: Place,
    /// A bit for each field of the object that was read before.
    read: &'r mut u64,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<Field>, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Option<Field>, E> {
        let field = Field::at(self.place, key);
        if let Some(field) = field {
            let bit = 1 << field as u32;
            if *self.read & bit != 0 {
                return Err(E::custom(format_args!("duplicate field `{key}`")));
            }
            *self.read |= bit;
        }
        Ok(field)
    }
}

/// The name of an object, unless it is absent or empty.
#[derive(Deserialize)]
#[serde(transparent)]
struct OptionalName(#[serde(deserialize_with = "names::optional")] Option<ObjectName>);
