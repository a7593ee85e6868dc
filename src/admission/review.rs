//! `admission.k8s.io/v1` on the wire: a borrowed view of the few fields that matter,
//! and the answer. The Pod itself is never decoded.
//! Source: <https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/>.
//!
//! kube has types for this, but they write the patch as an array of numbers where the
//! API says base64 (kube#1781), and copy the whole object.

use super::{ACCESS_TOKEN, warnings};
use crate::{
    kubernetes::is_subdomain,
    problem::{Class, Problem, Reason},
    untrusted::UntrustedText,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use json_patch::Patch;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor},
};
use std::{borrow::Cow, collections::BTreeSet, fmt, marker::PhantomData};

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
/// API servers send 36.
const MAX_UID: usize = 128;
/// The annotation names a few generators, each by at most 253 characters and its kind.
const MAX_ANNOTATION: usize = 8 * 1024;
/// Of a registry's name, and of a Secret's.
const MAX_NAME: usize = 253;
/// Distinct registries of a Pod whose review is a large one.
const MAX_REGISTRIES: usize = 64;
/// A patch for one pull secret has this many bytes and no more, as a rule.
const PATCH: usize = 512;

#[derive(Deserialize)]
struct Review<'a> {
    #[serde(borrow, rename = "apiVersion", default)]
    api_version: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Request<'a>,
}

/// What is read of an admission request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request<'a> {
    /// The request's id, to be echoed.
    #[serde(borrow)]
    pub uid: Cow<'a, str>,
    /// The namespace; the object's own may be empty.
    #[serde(borrow, default)]
    pub namespace: Cow<'a, str>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(borrow)]
    resource: Resource<'a>,
    #[serde(borrow, default)]
    sub_resource: Option<Cow<'a, str>>,
    /// Whether nothing may be made.
    #[serde(default)]
    pub dry_run: bool,
    /// The Pod.
    #[serde(borrow, default, deserialize_with = "null_is_default")]
    pub object: PodView<'a>,
}

#[derive(Debug, Deserialize)]
struct Resource<'a> {
    #[serde(borrow, default)]
    group: Cow<'a, str>,
    #[serde(borrow)]
    resource: Cow<'a, str>,
}

/// What is read of a Pod.
#[derive(Debug, Default, Deserialize)]
pub struct PodView<'a> {
    #[serde(borrow, default)]
    pub(super) metadata: Metadata<'a>,
    #[serde(borrow, default)]
    pub(super) spec: Spec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    generate_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub annotations: Option<Annotations<'a>>,
    #[serde(borrow, default)]
    pub labels: Option<Labels<'a>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Annotations<'a> {
    #[serde(borrow, default, rename = "acr-pull.dev/access-token")]
    pub access_token: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "acr-pull.dev/pull-secrets")]
    pub pull_secrets: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "kubernetes.io/config.mirror")]
    mirror: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Labels<'a> {
    #[serde(borrow, default, rename = "acr-pull.dev/injected")]
    pub injected: Option<Cow<'a, str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec<'a> {
    #[serde(borrow, default)]
    service_account_name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub image_pull_secrets: Option<List<LocalReference<'a>>>,
    #[serde(borrow, default)]
    containers: Option<List<Container<'a>>>,
    #[serde(borrow, default)]
    init_containers: Option<List<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<List<Container<'a>>>,
}

/// A list with a bound: three bytes of JSON can be an item, which takes ten times as many here.
#[derive(Debug)]
pub(super) struct List<T>(pub Vec<T>);

/// What a list has, and how many at most.
pub(super) trait Listed {
    const WHAT: &'static str;
    const MOST: usize;
}

#[derive(Debug, Deserialize)]
pub(super) struct Container<'a> {
    #[serde(borrow, default)]
    image: Option<Cow<'a, str>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct LocalReference<'a> {
    #[serde(borrow, default)]
    pub name: Cow<'a, str>,
}

/// How a Pod asks for pull secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// By its annotation, of this value.
    Annotation(&'a str),
    /// Not by itself: its Namespace may have a default.
    Default,
}

/// What was decided.
#[derive(Debug)]
pub enum Verdict {
    /// Not our Pod.
    Untouched,
    /// Admitted with its pull secrets; with warnings when tokens are still to come.
    Patched {
        /// The operations; none on a second call.
        patch: Patch,
        /// Why tokens are still to come.
        pending: Vec<Problem>,
        /// What else whoever made the Pod should know.
        notes: Vec<String>,
    },
    /// Refused: somebody has to mend something.
    Denied(Problem),
    /// Not decided: `failurePolicy` decides.
    Failed(Problem),
}

/// An AdmissionReview to send back.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// Reads a review; on failure with the uid, if at least that could be read.
pub fn parse(body: &[u8]) -> Result<Request<'_>, (Option<String>, Problem)> {
    let invalid = |why: String| {
        Problem::new(
            Reason::InvalidReview,
            format!("the AdmissionReview cannot be read: {why}"),
        )
    };
    // At once, and not text by text.
    let body = str::from_utf8(body).map_err(|e| (None, invalid(format!("it is not UTF-8: {e}"))))?;
    match serde_json::from_str::<Review>(body) {
        Ok(review) if review.request.uid.len() > MAX_UID => {
            Err((None, invalid(format!("its uid is longer than {MAX_UID} bytes"))))
        }
        Ok(review) if review.api_version == API_VERSION && review.kind == KIND => {
            let request = review.request;
            if let Some(name) = request.bad_name() {
                let why = format!(
                    "{} is not the name of a namespace or service account",
                    UntrustedText::quoted(name)
                );
                return Err((Some(request.uid.to_string()), invalid(why)));
            }
            if let Some(problem) = request.long_annotation() {
                return Err((Some(request.uid.to_string()), problem));
            }
            Ok(request)
        }
        Ok(review) => Err((
            Some(review.request.uid.into_owned()),
            invalid(format!(
                "it is {} {}, not {API_VERSION} {KIND}",
                UntrustedText::quoted(&review.api_version),
                UntrustedText::quoted(&review.kind)
            )),
        )),
        Err(error) => Err((
            uid(body),
            invalid(UntrustedText::new(&error.to_string()).to_string()),
        )),
    }
}

/// The uid alone, from a review that is wrong elsewhere.
fn uid(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct OnlyUid {
        request: Uid,
    }
    #[derive(Deserialize)]
    struct Uid {
        uid: String,
    }
    let review = serde_json::from_str::<OnlyUid>(body).ok()?;
    Some(review.request.uid).filter(|uid| uid.len() <= MAX_UID)
}

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// What cannot equal anything of ours is as good as empty.
fn ours_if(text: Cow<'_, str>, may_be: impl Fn(&str) -> bool) -> Cow<'static, str> {
    match may_be(&text) {
        true => owned(text),
        false => Cow::Borrowed(""),
    }
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

// === impl List ===

impl Listed for Container<'_> {
    const WHAT: &'static str = "containers of a kind";
    const MOST: usize = 1000;
}

impl Listed for LocalReference<'_> {
    const WHAT: &'static str = "imagePullSecrets";
    const MOST: usize = 128;
}

impl<'de, T: Listed + Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

struct Items<T>(PhantomData<T>);

impl<'de, T: Listed + Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", T::WHAT)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == T::MOST {
                let why = format!("the Pod has more than {} {}", T::MOST, T::WHAT);
                return Err(serde::de::Error::custom(why));
            }
            list.push(item);
        }
        Ok(List(list))
    }
}

// === impl Request ===

impl Request<'_> {
    /// What a decision needs of it and no more, without the body: whoever waits for a token holds no large review.
    pub fn detached(self) -> Result<Request<'static>, Problem> {
        let registries: BTreeSet<_> = self
            .object
            .registries()
            .filter(|registry| registry.len() <= MAX_NAME)
            .collect();
        if registries.len() > MAX_REGISTRIES {
            return Err(Problem::new(
                Reason::InvalidReview,
                format!("the Pod's images are from more than {MAX_REGISTRIES} registries"),
            ));
        }
        // As images, which is what they are looked for in.
        let image = |registry: &str| Container {
            image: Some(Cow::Owned(format!("{registry}/"))),
        };
        let containers = registries.into_iter().map(image).collect();
        let object = self.object;
        let name = object.name().to_owned();
        let (metadata, spec) = (object.metadata, object.spec);
        let annotations = metadata.annotations.map(|annotations| Annotations {
            access_token: annotations.access_token.map(owned),
            pull_secrets: annotations
                .pull_secrets
                .map(|text| ours_if(text, |text| text.len() <= MAX_ANNOTATION)),
            mirror: annotations.mirror.map(|_| Cow::Borrowed("")),
        });
        Ok(Request {
            uid: owned(self.uid),
            namespace: owned(self.namespace),
            operation: owned(self.operation),
            resource: Resource {
                group: owned(self.resource.group),
                resource: owned(self.resource.resource),
            },
            sub_resource: self.sub_resource.map(owned),
            dry_run: self.dry_run,
            object: PodView {
                metadata: Metadata {
                    name: Some(Cow::Owned(name)),
                    generate_name: None,
                    annotations,
                    labels: metadata.labels.map(|labels| Labels {
                        injected: labels.injected.map(|text| ours_if(text, |text| text == "true")),
                    }),
                },
                spec: Spec {
                    service_account_name: spec.service_account_name.map(owned),
                    image_pull_secrets: spec.image_pull_secrets.map(|List(list)| {
                        let name = |reference: LocalReference<'_>| LocalReference {
                            name: ours_if(reference.name, |name| name.len() <= MAX_NAME),
                        };
                        List(list.into_iter().map(name).collect())
                    }),
                    containers: Some(List(containers)),
                    init_containers: None,
                    ephemeral_containers: None,
                },
            },
        })
    }

    /// A reason to refuse it before anybody looks into it.
    fn long_annotation(&self) -> Option<Problem> {
        let annotations = self.object.metadata.annotations.as_ref()?;
        let annotation = annotations.access_token.as_deref()?;
        (annotation.len() > MAX_ANNOTATION).then(|| {
            Problem::new(
                Reason::InvalidAnnotation,
                format!(
                    "annotation {ACCESS_TOKEN} is longer than {MAX_ANNOTATION} bytes; name fewer generators there"
                ),
            )
        })
    }

    /// Names go into the paths of calls to the API server, which alone checks them before it asks us.
    fn bad_name(&self) -> Option<&str> {
        let names = [Some(&*self.namespace), self.object.service_account()];
        names.into_iter().flatten().find(|name| !is_subdomain(name))
    }

    /// How the Pod asks, where this is the creation of one.
    pub fn wanted(&self) -> Option<Wanted<'_>> {
        let pod = self.resource.group.is_empty() && self.resource.resource == "pods";
        let whole = self.sub_resource.as_ref().is_none_or(|s| s.is_empty());
        if !(pod && whole && self.operation == "CREATE") {
            return None;
        }
        let Some(annotations) = &self.object.metadata.annotations else {
            return Some(Wanted::Default);
        };
        match (&annotations.mirror, annotations.access_token.as_deref()) {
            // The mirror of a static Pod may name no Secret: the API server would refuse it.
            (Some(_), _) => None,
            (None, Some(annotation)) => Some(Wanted::Annotation(annotation)),
            (None, None) => Some(Wanted::Default),
        }
    }
}

// === impl PodView ===

impl PodView<'_> {
    /// The Pod's name, or what it will begin with.
    pub fn name(&self) -> &str {
        let Metadata {
            name, generate_name, ..
        } = &self.metadata;
        // The API server asks before it has checked them.
        let name = name.as_deref().or(generate_name.as_deref()).unwrap_or_default();
        &name[..name.floor_char_boundary(MAX_NAME)]
    }

    /// The service account, where the Pod names one.
    pub fn service_account(&self) -> Option<&str> {
        self.spec
            .service_account_name
            .as_deref()
            .filter(|name| !name.is_empty())
    }

    /// Whether the image of some container comes from this registry. Compared as the kubelet compares
    /// it with the pull secret's entry: exactly, so with no port and in lower case.
    pub fn pulls_from(&self, registry: &str) -> bool {
        self.registries().any(|found| found == registry)
    }

    /// What stands before the first `/` of each image: a registry, if it is one.
    pub fn registries(&self) -> impl Iterator<Item = &str> {
        let Spec {
            containers,
            init_containers,
            ephemeral_containers,
            ..
        } = &self.spec;
        let all = [containers, init_containers, ephemeral_containers];
        let all = all.into_iter().flatten().flat_map(|List(list)| list);
        all.filter_map(|container| {
            let image = container.image.as_deref()?;
            Some(image.trim().split_once('/')?.0)
        })
    }
}

// === impl Answer ===

impl<'a> Answer<'a> {
    /// The answer to the request of this uid.
    pub fn new(uid: &'a str, verdict: &Verdict) -> Self {
        let mut response = Response {
            uid,
            allowed: matches!(verdict, Verdict::Untouched | Verdict::Patched { .. }),
            patch_type: None,
            patch: None,
            status: None,
            warnings: Vec::new(),
        };
        match verdict {
            Verdict::Untouched => {}
            Verdict::Patched {
                patch,
                pending,
                notes,
            } => {
                // A patch type without a patch is refused, and the other way round.
                if !patch.0.is_empty() {
                    response.patch_type = Some("JSONPatch");
                    let mut json = Vec::with_capacity(PATCH);
                    if serde_json::to_writer(&mut json, patch).is_ok() {
                        response.patch = Some(STANDARD.encode(json));
                    }
                }
                let pending = pending.iter().map(|problem| {
                    format!("the Pod is admitted, its images follow when the token comes: {problem}")
                });
                let all = pending.chain(notes.iter().cloned());
                response.warnings =
                    warnings::bounded(all.map(|warning| format!("acr-pull-webhook: {warning}")));
            }
            Verdict::Denied(problem) | Verdict::Failed(problem) => {
                let (code, reason) = status(problem.reason);
                response.status = Some(Status {
                    code,
                    reason,
                    message: problem.to_string(),
                });
            }
        }
        Self {
            api_version: API_VERSION,
            kind: KIND,
            response,
        }
    }
}

/// The code and reason of a refusal in Kubernetes' terms (metav1.StatusReason).
fn status(reason: Reason) -> (u16, &'static str) {
    match reason.class() {
        _ if reason == Reason::InvalidReview => (400, "BadRequest"),
        Class::Invalid => (422, "Invalid"),
        // Not 503 for Azure's trouble: some clients repeat such a request by themselves, and at once.
        Class::Forbidden | Class::Upstream => (403, "Forbidden"),
        Class::ApiServer => (500, "InternalError"),
    }
}

#[cfg(test)]
mod tests;
