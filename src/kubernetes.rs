//! Calls to the Kubernetes API server. Each call has a time-out, and all errors are described in the same way.

use crate::{
    problem::{Problem, Reason},
    start_error::StartError,
    telemetry::FIELD_MANAGER,
    untrusted::UntrustedText,
};
use kube::{Client, Config, config::KubeConfigOptions, core::Status};
use serde::de::DeserializeOwned;
use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

mod client;

/// The file that contains a Pod's own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// The time-out of one call. By default kube waits for ever.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection is lost if it has an open request and receives nothing for this long, which is longer than any watch
/// lasts. kube limits the silence during a watch, but not before it.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// The time-out of a connection attempt. kube's default is 30 seconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client of the API server.
pub async fn client() -> Result<Client, StartError> {
    let config = Config::infer().await.map_err(StartError::failed(
        "no Kubernetes configuration was found; run in a Pod, or set KUBECONFIG",
    ))?;
    client::build(&config).map_err(StartError::failed("the Kubernetes client cannot be built"))
}

/// The client of the API server of this context of the kubeconfig.
pub async fn client_of_context(context: &str) -> Result<Client, StartError> {
    let options = KubeConfigOptions {
        context: Some(context.to_owned()),
        ..KubeConfigOptions::default()
    };
    let config = Config::from_kubeconfig(&options).await;
    let config = config.map_err(StartError::failed(format!(
        "the context {context:?} of the kubeconfig cannot be used"
    )))?;
    client::build(&config).map_err(StartError::failed("the Kubernetes client cannot be built"))
}

/// The namespace from a flag, or else the Pod's own namespace.
pub fn namespace_from_flag(flag: &str, value: Option<&str>) -> Result<String, StartError> {
    namespace(flag, value, Path::new(NAMESPACE_FILE))
}

/// The Pod's own namespace, if the webhook runs in a Pod.
pub fn namespace_of_this_pod() -> Option<String> {
    namespace("", None, Path::new(NAMESPACE_FILE)).ok()
}

fn namespace(flag: &str, value: Option<&str>, file: &Path) -> Result<String, StartError> {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        return Ok(value.to_owned());
    }
    match std::fs::read_to_string(file) {
        Ok(own) if !own.trim().is_empty() => Ok(own.trim().to_owned()),
        _ => Err(StartError::Flag(format!(
            "{flag} does not set a namespace, and the Pod's own namespace cannot be read from {}; set the namespace in {flag}",
            file.display()
        ))),
    }
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The API server returned a Status.
    Api(Box<Status>),
    /// The response has more than this many bytes.
    TooLarge(usize),
    /// There was no response, or the response could not be decoded.
    Transport(String),
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Api(status),
            error => Self::Transport(error.to_string()),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(status) => write!(f, "{} {}: {}", status.code, status.reason, status.message),
            Self::TooLarge(bytes) => write!(f, "the response has more than {bytes} bytes"),
            Self::Transport(cause) => f.write_str(cause),
        }
    }
}

/// Runs one call with [`CALL_TIMEOUT`].
pub async fn try_call<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    try_call_within(CALL_TIMEOUT, what, call).await
}

/// Runs one call with the time-out `limit`.
pub async fn try_call_within<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            let error = CallError::from(error);
            if let CallError::Transport(cause) = &error {
                tracing::debug!(what, cause, "a call to the API server failed");
            }
            Err(error)
        }
        Err(_) => Err(CallError::Transport(format!("no response within {limit:?}"))),
    }
}

/// Runs one call with [`CALL_TIMEOUT`], for callers that do not distinguish errors.
pub async fn call<T>(what: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Problem> {
    let result = try_call(what, call).await;
    result.map_err(|error| api_problem(what, error))
}

/// The label of all objects that the webhook creates.
pub fn managed_by_label() -> BTreeMap<String, String> {
    [(
        "app.kubernetes.io/managed-by".to_owned(),
        FIELD_MANAGER.to_owned(),
    )]
    .into()
}

/// The problem behind a failed call, for errors that the caller does not describe itself. If a retry can succeed, the
/// API server is unavailable. Every other status is a refusal, for example 400 from an admission webhook that denies
/// without a code, or 422 from a ValidatingAdmissionPolicy that denies without a reason.
pub fn api_problem(what: &str, error: CallError) -> Problem {
    match error {
        CallError::Api(s) if is_terminating(&s) => Problem::new(
            Reason::NamespaceTerminating,
            format!("{what} was refused because the namespace is being deleted"),
        ),
        CallError::Api(s) if is_namespace_not_found(&s) => Problem::new(
            Reason::NamespaceTerminating,
            format!("{what} was refused because the namespace no longer exists"),
        ),
        CallError::Api(s) if is_kind_missing(&s) => Problem::new(
            Reason::CrdNotInstalled,
            format!("{what} failed because its CustomResourceDefinition is not installed: install the CRDs of the chart"),
        )
        .command(LIST_CRDS),
        CallError::Api(s) if is_retryable(s.code) => {
            let seconds = s.details.as_ref().map_or(0, |d| d.retry_after_seconds);
            let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            let fact = format!("{what} failed with {} {}", s.code, UntrustedText::new(&s.reason).at_most(40));
            Problem::new(Reason::ApiServerUnavailable, fact)
                .quoting(&s.message)
                .retry_after(retry_after)
        }
        CallError::Api(s) => refused(what, &s),
        error @ (CallError::TooLarge(_) | CallError::Transport(_)) => {
            Problem::new(Reason::ApiServerUnavailable, format!("{what} failed")).quoting(&error.to_string())
        }
    }
}

/// Lists the CustomResourceDefinitions that the webhook needs.
const LIST_CRDS: &str = "kubectl get customresourcedefinitions acrpullsecrets.acr-pull.dev \
                         acraccesstokens.generators.external-secrets.io clustergenerators.generators.external-secrets.io";

/// The problem of a call that the API server refused, by the words of its authorizer and of its admission plugins.
fn refused(what: &str, status: &Status) -> Problem {
    let message = status.message.as_str();
    let from = |words: &str| message.find(words).map(|at| &message[at..]);
    if from("User \"").is_some_and(|rest| rest.contains("\" cannot ")) {
        let fact = format!(
            "the webhook lacks a permission, so {what} was refused: install the RBAC of this version"
        );
        return Problem::new(Reason::AccessForbidden, fact).quoting(from("cannot ").unwrap_or(message));
    }
    if let Some(quota) = from("exceeded quota: ").or_else(|| from("failed quota: ")) {
        let fact =
            format!("{what} was refused by a ResourceQuota: raise its count, or delete what is unused");
        return Problem::new(Reason::QuotaExceeded, fact).quoting(quota);
    }
    // The words of ValidatingAdmissionPolicies and of admission webhooks.
    let denied = [
        ("ValidatingAdmissionPolicy '", '\'', "denied request: "),
        ("admission webhook \"", '"', "denied the request: "),
    ];
    let denied = denied.into_iter().find_map(|(start, end, words)| {
        let (name, _) = from(start)?.strip_prefix(start)?.split_once(end)?;
        Some((name, from(words)?.strip_prefix(words)?))
    });
    if let Some((name, why)) = denied {
        let name = UntrustedText::new(name).at_most(64);
        return Problem::new(Reason::PolicyDenied, format!("policy {name} denied {what}")).quoting(why);
    }
    Problem::new(Reason::WriteForbidden, format!("{what} was refused")).quoting(message)
}

/// Whether the API server serves no such kind. It answers with a text and not with a Status, or with a Status about no
/// object.
pub fn is_kind_missing(status: &Status) -> bool {
    let is_about_object = |status: &Status| {
        status
            .details
            .as_ref()
            .is_some_and(|details| !details.name.is_empty())
    };
    status.code == 404 && !is_about_object(status)
}

/// Whether the same call may succeed later without a change of an object.
pub fn is_retryable(code: u16) -> bool {
    matches!(code, 401 | 408 | 409 | 429) || !(400..500).contains(&code)
}

/// Whether a call was refused because its namespace does not exist.
pub fn is_namespace_not_found(status: &Status) -> bool {
    let kind = status
        .details
        .as_ref()
        .map_or("", |details| details.kind.as_str());
    status.code == 404 && kind == "namespaces"
}

/// Sends a request whose response contains a credential, and decodes the response. kube would log the whole response if
/// it cannot decode it. The error of this function does not quote the response.
pub async fn send_and_decode<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<T, kube::Error> {
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).map_err(|_| {
        let why = "the response cannot be decoded";
        kube::Error::SerdeError(serde::de::Error::custom(why))
    })
}

/// Whether the namespace is being deleted. Source: `NamespaceTerminatingCause` in k8s.io/api/core/v1.
pub fn is_terminating(status: &Status) -> bool {
    status
        .details
        .iter()
        .flat_map(|d| &d.causes)
        .any(|c| c.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(code: u16, kind: &str) -> Problem {
        let status = serde_json::json!({
            "status": "Failure", "code": code, "reason": "X", "message": "because",
            "details": {"kind": kind, "name": "x", "retryAfterSeconds": 3},
        });
        let status: Status = serde_json::from_value(status).unwrap();
        api_problem("writing it", CallError::Api(Box::new(status)))
    }

    #[test]
    fn a_retryable_status_is_distinguished_from_a_refusal() {
        for code in [401, 408, 409, 429, 500, 502, 503, 504] {
            let problem = problem_of(code, "");
            assert_eq!(problem.reason, Reason::ApiServerUnavailable, "{code}");
            assert_eq!(problem.retry_after, Some(Duration::from_secs(3)));
        }
        for code in [400, 403, 404, 405, 410, 413, 415, 422] {
            let problem = problem_of(code, "");
            assert_eq!(problem.reason, Reason::WriteForbidden, "{code}");
            assert!(!problem.is_transient() && problem.sentence().contains("(because)"));
        }
        assert_eq!(problem_of(404, "namespaces").reason, Reason::NamespaceTerminating);
    }

    #[test]
    fn a_refusal_is_explained_by_who_refused_it() {
        let reason = |code: u16, message: &str| {
            let status = Status::failure(message, "Forbidden").with_code(code);
            let problem = api_problem("writing Secret a/b", CallError::Api(Box::new(status)));
            assert!(problem.fact.contains("writing Secret a/b"), "{problem}");
            problem.reason
        };
        for (code, message, expected) in [
            (
                403,
                "secrets is forbidden: User \"system:serviceaccount:a:webhook\" cannot create resource \"secrets\" in API group \"\"",
                Reason::AccessForbidden,
            ),
            (
                403,
                "secrets \"b\" is forbidden: exceeded quota: few, requested: secrets=1, used: secrets=5, limited: secrets=5",
                Reason::QuotaExceeded,
            ),
            (
                403,
                "secrets \"b\" is forbidden: ValidatingAdmissionPolicy 'labels' with binding 'labels' denied request: no team",
                Reason::PolicyDenied,
            ),
            (
                400,
                "admission webhook \"validate.kyverno.svc-fail\" denied the request: no team",
                Reason::PolicyDenied,
            ),
            (422, "Secret \"b\" is invalid", Reason::WriteForbidden),
            (404, "404 page not found", Reason::CrdNotInstalled),
        ] {
            assert_eq!(reason(code, message), expected, "{message}");
        }
    }

    #[test]
    fn the_flag_overrides_the_pods_namespace_and_without_both_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("namespace");
        let refusal = namespace("--flag", None, &file).unwrap_err();
        assert!(
            refusal.to_string().starts_with("--flag does not set a namespace"),
            "{refusal}"
        );
        std::fs::write(&file, "own\n").unwrap();
        assert_eq!(namespace("--flag", None, &file).unwrap(), "own");
        assert_eq!(namespace("--flag", Some(""), &file).unwrap(), "own");
        assert_eq!(namespace("--flag", Some("flag"), &file).unwrap(), "flag");
    }
}
