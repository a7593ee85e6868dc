//! The request of an `admission.k8s.io/v1` AdmissionReview: a borrowed view of the fields that a decision needs. The
//! Pod is not decoded as a whole. Source: <https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/>.

mod images;
mod reader;

pub use images::without_port;

use super::ACCESS_TOKEN_ANNOTATION;
use crate::{
    names::{MAX_NAME_LENGTH, NamespaceName, ObjectName},
    problem::{Problem, Reason},
    text::Text,
    untrusted::UntrustedText,
};
use reader::Fields;
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

/// The fields of an admission request that a decision needs.
#[derive(Debug)]
pub struct Request<'a> {
    /// The id of the request, which the response repeats.
    pub uid: Text<'a>,
    /// The namespace of the request. The namespace in the metadata of the Pod may be empty.
    pub namespace: NamespaceName,
    operation: Text<'a>,
    group: Text<'a>,
    resource: Text<'a>,
    sub_resource: Text<'a>,
    /// Whether the request must not have side effects.
    pub dry_run: bool,
    /// The Pod.
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
            group: self.group.into_owned(),
            resource: self.resource.into_owned(),
            sub_resource: self.sub_resource.into_owned(),
            dry_run: self.dry_run,
            object: self.object.detached(images),
        })
    }

    /// Refuses an annotation that is too long to be parsed.
    fn oversized_annotation(&self) -> Option<Problem> {
        let annotations = self.object.annotations.as_ref()?;
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
        let is_pod = self.group.is_empty() && self.resource == "pods" && self.sub_resource.is_empty();
        if !(is_pod && self.operation == "CREATE") {
            return None;
        }
        let Some(annotations) = &self.object.annotations else {
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
#[derive(Debug, Default)]
pub struct PodView<'a> {
    name: Option<Text<'a>>,
    generate_name: Option<Text<'a>>,
    pub(super) annotations: Option<Annotations<'a>>,
    pub(super) labels: Option<Labels<'a>>,
    service_account_name: Option<ObjectName>,
    pub(super) image_pull_secrets: Option<Vec<Text<'a>>>,
    /// The images of all kinds of containers and of image volumes.
    images: Vec<Text<'a>>,
}

impl PodView<'_> {
    /// A copy with these images.
    fn detached(self, images: Vec<String>) -> PodView<'static> {
        let name = self.name().to_owned();
        let annotations = self.annotations.map(|annotations| Annotations {
            access_token: annotations.access_token.map(Text::into_owned),
            pull_secrets: annotations
                .pull_secrets
                .map(|text| owned_if(text, |text| text.len() <= MAX_ANNOTATION_LENGTH)),
            mirror: annotations.mirror.map(|_| Text::default()),
        });
        let pull_secret = |name| owned_if(name, |name| name.len() <= MAX_NAME_LENGTH);
        PodView {
            name: Some(name.into()),
            generate_name: None,
            annotations,
            labels: self.labels.map(|labels| Labels {
                injected: labels.injected.map(|text| owned_if(text, |text| text == "true")),
            }),
            service_account_name: self.service_account_name,
            image_pull_secrets: self
                .image_pull_secrets
                .map(|names| names.into_iter().map(pull_secret).collect()),
            images: images.into_iter().map(Text::from).collect(),
        }
    }

    /// The name of the Pod, or the prefix of the name that will be generated.
    pub fn name(&self) -> &str {
        // The API server validates the name only after admission.
        let name = self.name.as_deref().or(self.generate_name.as_deref());
        let name = name.unwrap_or_default();
        &name[..name.floor_char_boundary(MAX_NAME_LENGTH)]
    }

    /// The service account, if the Pod names one.
    pub fn service_account(&self) -> Option<&ObjectName> {
        self.service_account_name.as_ref()
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
        self.images.iter().map(|image| image.trim())
    }
}

#[derive(Debug, Default)]
pub(super) struct Annotations<'a> {
    pub access_token: Option<Text<'a>>,
    pub pull_secrets: Option<Text<'a>>,
    mirror: Option<Text<'a>>,
}

#[derive(Debug, Default)]
pub(super) struct Labels<'a> {
    pub injected: Option<Text<'a>>,
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
    let fields = match serde_json::from_str::<Fields<'_>>(body) {
        Ok(fields) => fields,
        Err(error) => return Err((parse_uid(body), invalid(error.to_string()))),
    };
    let missing = |field| (parse_uid(body), invalid(format!("missing field `{field}`")));
    let request = Request {
        uid: fields.uid.ok_or_else(|| missing("uid"))?,
        namespace: fields.namespace.ok_or_else(|| missing("namespace"))?,
        operation: fields.operation.ok_or_else(|| missing("operation"))?,
        group: fields.group.unwrap_or_default(),
        resource: fields.resource.ok_or_else(|| missing("resource"))?,
        sub_resource: fields.sub_resource.unwrap_or_default(),
        dry_run: fields.dry_run.unwrap_or_default(),
        object: fields.pod,
    };
    if request.uid.len() > MAX_UID_LENGTH {
        let why = format!("its uid is longer than {MAX_UID_LENGTH} bytes");
        return Err((None, invalid(why)));
    }
    let (api_version, kind) = (
        fields.api_version.unwrap_or_default(),
        fields.kind.unwrap_or_default(),
    );
    if api_version != API_VERSION || kind != KIND {
        let why = format!(
            "it is {} {}, not {API_VERSION} {KIND}",
            UntrustedText::quoted(&api_version),
            UntrustedText::quoted(&kind)
        );
        return Err((Some(request.uid.to_string()), invalid(why)));
    }
    match request.oversized_annotation() {
        Some(problem) => Err((Some(request.uid.to_string()), problem)),
        None => Ok(request),
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

#[cfg(test)]
mod tests;
