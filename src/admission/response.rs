//! The verdict about a Pod, and its `admission.k8s.io/v1` response.
//!
//! The types of kube are not used, because they serialize the patch as an array of numbers instead of base64
//! (kube#1781) and copy the whole object of the request.

use super::{
    review::{API_VERSION, KIND},
    warnings::{Warning, bounded},
};
use crate::{
    problem::{Class, Problem, Reason},
    untrusted::UntrustedText,
};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;

/// The maximum size of a uid in a message. Those of API servers have 36 bytes.
const MAX_SHOWN_UID_BYTES: usize = 64;

/// The decision about a Pod.
#[derive(Debug)]
pub enum Verdict {
    /// The Pod needs no pull secrets, and is admitted without changes.
    Untouched,
    /// The Pod is admitted without changes, and its creator is warned about what the default of the Namespace would do.
    Audited {
        /// The warnings.
        warnings: Vec<Warning>,
        /// Why the Pod would be refused.
        problem: Option<Problem>,
    },
    /// The Pod is admitted with its pull secrets.
    Patched {
        /// The patch as a JSON string of base64. `None` if the Pod already has its pull secrets.
        patch: Option<Arc<RawValue>>,
        /// Why the tokens of some pull secrets are not available yet.
        pending: Vec<Problem>,
        /// Other warnings for the creator of the Pod.
        warnings: Vec<Warning>,
    },
    /// The Pod is refused until the problem is fixed.
    Denied(Problem),
    /// No decision was possible, and `failurePolicy` applies.
    Failed(Problem),
}

/// An AdmissionReview with the response.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionResponse<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

impl<'a> AdmissionResponse<'a> {
    /// The response to the request with this uid.
    pub fn new(uid: &'a str, verdict: &'a Verdict) -> Self {
        let mut response = Response {
            uid,
            allowed: !matches!(verdict, Verdict::Denied(_) | Verdict::Failed(_)),
            patch_type: None,
            patch: None,
            status: None,
            warnings: Vec::new(),
        };
        match verdict {
            Verdict::Untouched => {}
            Verdict::Audited { warnings, .. } => response.warnings = bounded(warnings.iter().cloned()),
            Verdict::Patched {
                patch,
                pending,
                warnings,
            } => {
                // The API server refuses a patch type without a patch and a patch without a patch type.
                response.patch_type = patch.as_ref().map(|_| "JSONPatch");
                response.patch = patch.as_deref();
                let pending = pending
                    .iter()
                    .map(|problem| Warning::about("the Pod is admitted without a token yet: ", problem));
                response.warnings = bounded(pending.chain(warnings.iter().cloned()));
            }
            Verdict::Denied(problem) | Verdict::Failed(problem) => {
                let (code, reason) = status(problem.reason);
                response.status = Some(Status {
                    code,
                    reason,
                    message: refusal(problem, uid),
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

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<&'a RawValue>,
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

/// The message of a refusal: the problem, its command, and the uid of the review, by which the line of the log is found.
pub fn refusal(problem: &Problem, uid: &str) -> String {
    let uid = UntrustedText::inert(uid).at_most(MAX_SHOWN_UID_BYTES);
    format!("{}\n(uid {uid} in the log of acr-pull-webhook)", problem.full())
}

/// The HTTP code and the `metav1.StatusReason` of a refusal.
fn status(reason: Reason) -> (u16, &'static str) {
    match reason.class() {
        _ if reason == Reason::InvalidReview => (400, "BadRequest"),
        Class::Invalid => (422, "Invalid"),
        // Not 503 for a failure of Azure, because some clients repeat a request immediately after a 503.
        Class::Forbidden | Class::Upstream => (403, "Forbidden"),
        Class::ApiServer => (500, "InternalError"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{encoded_patch, review::PodView};
    use base64::{Engine, engine::general_purpose::STANDARD};
    use json_patch::Patch;
    use serde_json::json;

    #[test]
    fn a_response_has_both_a_base64_patch_and_its_type_or_neither() {
        let response = |patch| {
            let verdict = Verdict::Patched {
                patch,
                pending: Vec::new(),
                warnings: Vec::new(),
            };
            serde_json::to_value(AdmissionResponse::new("u-1", &verdict)).unwrap()["response"].clone()
        };
        let full = response(encoded_patch(&PodView::default(), &["a"], None));
        assert_eq!(full["patchType"], "JSONPatch");
        let decoded = STANDARD.decode(full["patch"].as_str().unwrap()).unwrap();
        assert!(serde_json::from_slice::<Patch>(&decoded).is_ok());
        assert_eq!(response(None), json!({"uid": "u-1", "allowed": true}));
    }

    #[test]
    fn a_refusal_has_a_code_and_a_reason() {
        let problem = Problem::new(Reason::RegistryNotAllowed, "no").command("kubectl get pods");
        let verdict = Verdict::Denied(problem);
        let response = serde_json::to_value(AdmissionResponse::new("u-1", &verdict)).unwrap();
        let message = "RegistryNotAllowed: no; see https://acr-pull.dev/reasons.html#registrynotallowed\nkubectl get pods\n\
                       (uid u-1 in the log of acr-pull-webhook)";
        assert_eq!(
            response["response"],
            json!({"uid": "u-1", "allowed": false, "status": {"code": 403, "reason": "Forbidden", "message": message}})
        );
    }
}
