//! The request of an `admission.k8s.io/v1` AdmissionReview: a borrowed view of the fields that a decision needs. The
//! Pod is not decoded as a whole. Source: <https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/>.

mod images;

pub use images::without_port;

use super::{
    ACCESS_TOKEN_ANNOTATION,
    bounded_list::{BoundedList, ListItem},
};
use crate::{
    names::{self, MAX_NAME_LENGTH, NamespaceName, ObjectName},
    problem::{Problem, Reason},
    text::Text,
    untrusted::UntrustedText,
};
use images::{Container, Volume};
use serde::Deserialize;
use std::collections::BTreeSet;

pub(super) const API_VERSION: &str = "admission.k8s.io/v1";
pub(super) const KIND: &str = "AdmissionReview";
/// The maximum length of a uid. API servers send 36 bytes.
const MAX_UID_LENGTH: usize = 128;
/// The maximum length of an annotation with references or with names of pull secrets. A name has at most 253 bytes.
const MAX_ANNOTATION_LENGTH: usize = 8 * 1024;
/// The maximum number of distinct registries of a Pod whose request is copied by `Request::detached`.
const MAX_REGISTRIES: usize = 64;

#[derive(Deserialize)]
struct AdmissionReview<'a> {
    #[serde(borrow, rename = "apiVersion", default)]
    api_version: Text<'a>,
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(borrow)]
    request: Request<'a>,
}

/// The fields of an admission request that a decision needs.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// The id of the request, which the response repeats.
    #[serde(borrow)]
    pub uid: Text<'a>,
    /// The namespace of the request. The namespace in the metadata of the Pod may be empty.
    pub namespace: NamespaceName,
    #[serde(borrow)]
    operation: Text<'a>,
    #[serde(borrow)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    sub_resource: Option<Text<'a>>,
    /// Whether the request must not have side effects.
    #[serde(default)]
    pub dry_run: bool,
    /// The Pod.
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    pub object: PodView<'a>,
}

impl Request<'_> {
    /// A copy of what a decision needs, so that a request that waits for a token does not keep its large body.
    pub fn detached(self) -> Result<Request<'static>, Problem> {
        let registries: BTreeSet<_> = self
            .object
            .registries()
            .filter(|registry| registry.len() <= MAX_NAME_LENGTH)
            .collect();
        if registries.len() > MAX_REGISTRIES {
            return Err(Problem::new(
                Reason::InvalidReview,
                format!("the Pod's images are from more than {MAX_REGISTRIES} registries"),
            ));
        }
        let images = images::distinct(self.object.images()).unwrap_or_else(|| {
            registries
                .into_iter()
                .map(|registry| format!("{registry}/"))
                .collect()
        });
        Ok(Request {
            uid: self.uid.into_owned(),
            namespace: self.namespace,
            operation: self.operation.into_owned(),
            resource: Resource {
                group: self.resource.group.into_owned(),
                resource: self.resource.resource.into_owned(),
            },
            sub_resource: self.sub_resource.map(Text::into_owned),
            dry_run: self.dry_run,
            object: self.object.detached(images),
        })
    }

    /// Refuses an annotation that is too long to be parsed.
    fn oversized_annotation(&self) -> Option<Problem> {
        let annotations = self.object.metadata.annotations.as_ref()?;
        let annotation = annotations.access_token.as_deref()?;
        (annotation.len() > MAX_ANNOTATION_LENGTH).then(|| {
            Problem::new(
                Reason::InvalidAnnotation,
                format!(
                    "annotation {ACCESS_TOKEN_ANNOTATION} is longer than {MAX_ANNOTATION_LENGTH} bytes: reference fewer generators"
                ),
            )
        })
    }

    /// Where the references to generators come from, if this request creates a Pod that may have pull secrets.
    pub fn reference_source(&self) -> Option<ReferenceSource<'_>> {
        let is_pod = self.resource.group.is_empty() && self.resource.resource == "pods";
        let has_sub_resource = self.sub_resource.as_ref().is_some_and(|s| !s.is_empty());
        if !(is_pod && !has_sub_resource && self.operation == "CREATE") {
            return None;
        }
        let Some(annotations) = &self.object.metadata.annotations else {
            return Some(ReferenceSource::NamespaceLabel);
        };
        match (&annotations.mirror, annotations.access_token.as_deref()) {
            // The API server refuses a mirror Pod that references a Secret.
            (Some(_), _) => None,
            (None, Some(annotation)) => Some(ReferenceSource::PodAnnotation(annotation)),
            (None, None) => Some(ReferenceSource::NamespaceLabel),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    group: Text<'a>,
    #[serde(borrow)]
    resource: Text<'a>,
}

/// How the images of a Pod name a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling<'a> {
    /// Without a port and in lower case, as the kubelet compares the registry with the entry of the pull secret.
    Exact,
    /// At least one image in another way, to which the kubelet does not apply the pull secret: in another case, or with
    /// the port of HTTPS.
    Other(&'a str),
}

/// The fields of a Pod that a decision needs.
#[derive(Debug, Default, Deserialize)]
pub struct PodView<'a> {
    #[serde(borrow, default)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow, default)]
    pub(super) spec: Spec<'a>,
}

impl PodView<'_> {
    /// A copy with these images, all of containers.
    fn detached(self, images: Vec<String>) -> PodView<'static> {
        let container = |image: String| Container {
            image: Some(image.into()),
        };
        let containers = images.into_iter().map(container).collect();
        let name = self.name().to_owned();
        let (metadata, spec) = (self.metadata, self.spec);
        let annotations = metadata.annotations.map(|annotations| Annotations {
            access_token: annotations.access_token.map(Text::into_owned),
            pull_secrets: annotations
                .pull_secrets
                .map(|text| owned_if(text, |text| text.len() <= MAX_ANNOTATION_LENGTH)),
            mirror: annotations.mirror.map(|_| Text::default()),
        });
        PodView {
            metadata: Metadata {
                name: Some(name.into()),
                generate_name: None,
                annotations,
                labels: metadata.labels.map(|labels| Labels {
                    injected: labels.injected.map(|text| owned_if(text, |text| text == "true")),
                }),
            },
            spec: Spec {
                service_account_name: spec.service_account_name,
                image_pull_secrets: spec.image_pull_secrets.map(|BoundedList(list)| {
                    let name = |reference: LocalObjectReference<'_>| LocalObjectReference {
                        name: owned_if(reference.name, |name| name.len() <= MAX_NAME_LENGTH),
                    };
                    BoundedList(list.into_iter().map(name).collect())
                }),
                containers: Some(BoundedList(containers)),
                init_containers: None,
                ephemeral_containers: None,
                volumes: None,
            },
        }
    }

    /// The name of the Pod, or the prefix of the name that will be generated.
    pub fn name(&self) -> &str {
        let Metadata {
            name, generate_name, ..
        } = &self.metadata;
        // The API server validates the name only after admission.
        let name = name.as_deref().or(generate_name.as_deref()).unwrap_or_default();
        &name[..name.floor_char_boundary(MAX_NAME_LENGTH)]
    }

    /// The service account, if the Pod names one.
    pub fn service_account(&self) -> Option<&ObjectName> {
        self.spec.service_account_name.as_ref()
    }

    /// How the images name this registry. `None` if no image comes from it.
    pub fn spelling_of(&self, registry: &str) -> Option<Spelling<'_>> {
        let mut spelling = None;
        for found in self.registries() {
            if found == registry {
                spelling = Some(Spelling::Exact);
            } else if without_port(found).eq_ignore_ascii_case(registry) {
                return Some(Spelling::Other(found));
            }
        }
        spelling
    }

    /// The text before the first `/` of each image, which may be a registry.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        self.images().filter_map(|image| Some(image.split_once('/')?.0))
    }

    /// The repositories of the images that name this registry as the kubelet compares it.
    pub fn repositories_of<'b>(&'b self, registry: &'b str) -> impl Iterator<Item = &'b str> {
        let repository = move |image: &'b str| {
            let name = images::without_tag(image);
            let repository = name.strip_prefix(registry)?.strip_prefix('/')?;
            // A detached request with very many images keeps the registries only.
            (!repository.is_empty()).then_some(repository)
        };
        self.images().filter_map(repository)
    }

    /// All images.
    fn images(&self) -> impl Iterator<Item = &str> {
        let Spec {
            containers,
            init_containers,
            ephemeral_containers,
            volumes,
            ..
        } = &self.spec;
        let containers = [containers, init_containers, ephemeral_containers];
        let containers = containers
            .into_iter()
            .flatten()
            .flat_map(|BoundedList(list)| list);
        let images = containers.filter_map(|container| container.image.as_deref());
        let volumes = volumes.iter().flat_map(|BoundedList(list)| list);
        let volumes = volumes.filter_map(|volume| volume.image.as_ref()?.reference.as_deref());
        images.chain(volumes).map(str::trim)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    generate_name: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub annotations: Option<Annotations<'a>>,
    #[serde(borrow, default)]
    pub labels: Option<Labels<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations<'a> {
    #[serde(borrow, default, rename = "acr-pull.dev/access-token")]
    pub access_token: Option<Text<'a>>,
    #[serde(borrow, default, rename = "acr-pull.dev/pull-secrets")]
    pub pull_secrets: Option<Text<'a>>,
    #[serde(borrow, default, rename = "kubernetes.io/config.mirror")]
    mirror: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Labels<'a> {
    #[serde(borrow, default, rename = "acr-pull.dev/injected")]
    pub injected: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec<'a> {
    #[serde(default, deserialize_with = "names::optional")]
    service_account_name: Option<ObjectName>,
    #[serde(borrow, default)]
    pub image_pull_secrets: Option<BoundedList<LocalObjectReference<'a>>>,
    #[serde(borrow, default)]
    containers: Option<BoundedList<Container<'a>>>,
    #[serde(borrow, default)]
    init_containers: Option<BoundedList<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<BoundedList<Container<'a>>>,
    #[serde(borrow, default)]
    volumes: Option<BoundedList<Volume<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LocalObjectReference<'a> {
    #[serde(borrow, default)]
    pub name: Text<'a>,
}

impl ListItem for LocalObjectReference<'_> {
    const PLURAL: &'static str = "imagePullSecrets";
    const MAX_ITEMS: usize = 128;
}

/// Where the references to the generators of a Pod come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceSource<'a> {
    /// The annotation of the Pod, with this value.
    PodAnnotation(&'a str),
    /// The label of the Namespace, because the Pod has no annotation.
    NamespaceLabel,
}

/// Parses a review. The error contains the uid if that could be parsed.
pub fn parse(body: &[u8]) -> Result<Request<'_>, (Option<String>, Problem)> {
    let invalid =
        |why: String| Problem::new(Reason::InvalidReview, "the AdmissionReview is invalid").quoting(&why);
    // UTF-8 is validated once for the whole body; serde would validate every string.
    let body = str::from_utf8(body).map_err(|e| (None, invalid(format!("it is not UTF-8: {e}"))))?;
    match serde_json::from_str::<AdmissionReview>(body) {
        Ok(review) if review.request.uid.len() > MAX_UID_LENGTH => Err((
            None,
            invalid(format!("its uid is longer than {MAX_UID_LENGTH} bytes")),
        )),
        Ok(review) if review.api_version == API_VERSION && review.kind == KIND => {
            let request = review.request;
            if let Some(problem) = request.oversized_annotation() {
                return Err((Some(request.uid.to_string()), problem));
            }
            Ok(request)
        }
        Ok(review) => Err((
            Some(review.request.uid.to_string()),
            invalid(format!(
                "it is {} {}, not {API_VERSION} {KIND}",
                UntrustedText::quoted(&review.api_version),
                UntrustedText::quoted(&review.kind)
            )),
        )),
        Err(error) => Err((parse_uid(body), invalid(error.to_string()))),
    }
}

/// The uid of a review that is otherwise invalid.
fn parse_uid(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyUid {
        request: Uid,
    }
    #[derive(Deserialize)]
    struct Uid {
        uid: String,
    }
    let review = serde_json::from_str::<OnlyUid>(body).ok()?;
    Some(review.request.uid).filter(|uid| uid.len() <= MAX_UID_LENGTH)
}

/// Copies a text that is only compared with values of the webhook. A text that cannot equal any of them becomes empty.
fn owned_if(text: Text<'_>, can_be_equal: impl Fn(&str) -> bool) -> Text<'static> {
    if can_be_equal(&text) {
        text.into_owned()
    } else {
        Text::default()
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
