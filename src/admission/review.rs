//! `admission.k8s.io/v1` on the wire: a borrowed view of the few fields that matter,
//! and the answer. The Pod itself is never decoded.
//! Source: <https://kubernetes.io/docs/reference/config-api/apiserver-admission.v1/>.
//!
//! kube has types for this, but they write the patch as an array of numbers where the
//! API says base64 (kube#1781), and copy the whole object.

use super::warnings;
use crate::{
    foreign::Foreign,
    kubernetes::is_subdomain,
    problem::{Class, Problem, Reason},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use json_patch::Patch;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";
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
    pub image_pull_secrets: Option<Vec<LocalReference<'a>>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    init_containers: Option<Vec<Container<'a>>>,
    #[serde(borrow, default)]
    ephemeral_containers: Option<Vec<Container<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Container<'a> {
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
        Ok(review) if review.api_version == API_VERSION && review.kind == KIND => {
            match review.request.bad_name() {
                None => Ok(review.request),
                Some(name) => {
                    let why = format!(
                        "{} is not the name of a namespace or service account",
                        Foreign::quoted(name)
                    );
                    Err((Some(review.request.uid.to_string()), invalid(why)))
                }
            }
        }
        Ok(review) => Err((
            Some(review.request.uid.into_owned()),
            invalid(format!(
                "it is {} {}, not {API_VERSION} {KIND}",
                Foreign::quoted(&review.api_version),
                Foreign::quoted(&review.kind)
            )),
        )),
        Err(error) => Err((uid(body), invalid(Foreign::new(&error.to_string()).to_string()))),
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
    serde_json::from_str::<OnlyUid>(body).ok().map(|r| r.request.uid)
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

// === impl Request ===

impl Request<'_> {
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
        name.as_deref().or(generate_name.as_deref()).unwrap_or_default()
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
        all.into_iter().flatten().flatten().filter_map(|container| {
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
