//! Calls to our own API server: each bounded in time, each error told in one way.

use crate::{
    foreign::Foreign,
    problem::{Problem, Reason},
    telemetry::FIELD_MANAGER,
    watch::{self, Item, Watched},
};
use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::{
    Client, Config, Resource,
    core::{ObjectMeta, Status},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};
use std::{collections::BTreeMap, path::Path, time::Duration};

/// Where Kubernetes tells a Pod its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Bounds one call. kube's own default is to wait for ever.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection on which we have asked and heard nothing for so long is lost; longer than any watch lasts. kube bounds
/// the silence in a watch, but not the one before it.
const SILENCE: Duration = Duration::from_secs(20);
/// kube's own is half a minute.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The annotation of a Pod that shows what a kubelet runs by itself.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// A Pod, of which nothing else is read: the whole of it is a great deal of code.
#[derive(Clone, Debug, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub struct Pod {
    /// Its name and annotations.
    pub metadata: ObjectMeta,
    /// How it runs.
    pub spec: PodSpec,
    /// What its node says of it.
    pub status: Option<PodStatus>,
}

impl Watched for Pod {
    fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        #[derive(Deserialize)]
        struct Body {
            spec: PodSpec,
            status: Option<PodStatus>,
        }
        watch::decode(deserializer, |metadata, Body { spec, status }| Self {
            metadata,
            spec,
            status,
        })
    }
}

/// What a node says of a Pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    container_statuses: Option<Vec<ContainerStatus>>,
    init_container_statuses: Option<Vec<ContainerStatus>>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    image: String,
    state: Option<ContainerState>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerState {
    waiting: Option<Waiting>,
    running: Option<IgnoredAny>,
}

#[derive(Clone, Debug, Deserialize)]
struct Waiting {
    reason: Option<String>,
}

/// How a Pod runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// Whose identity it has.
    pub service_account_name: Option<String>,
    /// With what it pulls.
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
}

/// Why a call did not succeed.
pub enum CallError {
    /// The API server answered with a Status.
    Api(Box<Status>),
    /// There was no answer.
    Transport(String),
}

/// The client of the API server, without kube's own retries: they outlive any admission.
pub async fn client() -> Result<Client, String> {
    let mut config = Config::infer().await.map_err(|e| {
        format!("no Kubernetes configuration was found ({e}); run in a Pod, or set KUBECONFIG")
    })?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    // HTTPS_PROXY is for Azure. kube would send the API server's traffic there too.
    config.proxy_url = None;
    Client::try_from(config).map_err(|e| format!("the Kubernetes client cannot be built: {e}"))
}

/// The namespace that a flag names, else the Pod's own; an error is a sentence for the operator.
pub fn own_namespace(flag: &str, value: Option<&str>) -> Result<String, String> {
    namespace(flag, value, Path::new(NAMESPACE_FILE))
}

/// The Pod's own namespace, where this runs in a Pod.
pub fn pods_namespace() -> Option<String> {
    namespace("", None, Path::new(NAMESPACE_FILE)).ok()
}

fn namespace(flag: &str, value: Option<&str>, file: &Path) -> Result<String, String> {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        return Ok(value.to_owned());
    }
    match std::fs::read_to_string(file) {
        Ok(own) if !own.trim().is_empty() => Ok(own.trim().to_owned()),
        _ => Err(format!(
            "{flag} names no namespace, and {} does not tell the Pod's own; name one",
            file.display()
        )),
    }
}

// === impl Pod ===

impl Pod {
    /// Whether all its containers run, so that none of them waits for an image.
    pub fn runs(&self) -> bool {
        let containers = self
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let running = |container: &ContainerStatus| {
            container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        };
        containers.clone().next().is_some() && containers.into_iter().all(running)
    }

    /// Whether one of its containers waits for an image of this registry, which could not be pulled.
    pub fn waits_for_image_of(&self, registry: &str) -> bool {
        let of = |status: &PodStatus| {
            [
                status.container_statuses.clone(),
                status.init_container_statuses.clone(),
            ]
        };
        let containers = self.status.iter().flat_map(of).flatten().flatten();
        containers.into_iter().any(|container| {
            let waiting = container.state.and_then(|state| state.waiting?.reason);
            let pulls = matches!(waiting.as_deref(), Some("ErrImagePull" | "ImagePullBackOff"));
            pulls
                && container
                    .image
                    .strip_prefix(registry)
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

/// Runs one call with the time-out.
pub async fn bounded<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    bounded_by(CALL_TIMEOUT, what, call).await
}

/// The same with another time-out.
pub async fn bounded_by<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(CallError::Api(status)),
        Ok(Err(error)) => {
            tracing::debug!(what, %error, "a call to the API server failed");
            Err(CallError::Transport(error.to_string()))
        }
        Err(_) => Err(CallError::Transport(format!("no answer within {limit:?}"))),
    }
}

/// Runs one call with the time-out, for a caller to whom every failure means the same.
pub async fn call<T>(what: &str, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Problem> {
    let answer = bounded(what, call).await;
    answer.map_err(|error| api_problem(what, error))
}

/// Whose object it is: a label that everything we make carries.
pub fn managed_by() -> BTreeMap<String, String> {
    [(
        "app.kubernetes.io/managed-by".to_owned(),
        FIELD_MANAGER.to_owned(),
    )]
    .into()
}

/// The problem behind a failed call that the caller has no better words for. What another try can mend is our API server's
/// trouble; whatever else it answers is its refusal, with its words: a webhook that denies without a code is a 400, a
/// ValidatingAdmissionPolicy that denies without a reason a 422.
pub fn api_problem(what: &str, error: CallError) -> Problem {
    match error {
        CallError::Api(s) if is_terminating(&s) => Problem::new(
            Reason::NamespaceTerminating,
            format!("{what} was refused because the namespace is being deleted"),
        ),
        CallError::Api(s) if is_of_namespace_gone(&s) => Problem::new(
            Reason::NamespaceTerminating,
            format!("{what} was refused because the namespace does not exist any more"),
        ),
        CallError::Api(s) if is_passing(s.code) => {
            let seconds = s.details.as_ref().map_or(0, |d| d.retry_after_seconds);
            let asked = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            let message = format!(
                "{what} failed with {} {}: {}",
                s.code,
                Foreign::new(&s.reason),
                Foreign::new(&s.message)
            );
            Problem::new(Reason::ApiServerUnavailable, message).retry_after(asked)
        }
        CallError::Api(s) => Problem::new(
            Reason::WriteForbidden,
            format!("{what} was refused: {}", Foreign::new(&s.message)),
        ),
        CallError::Transport(cause) => {
            let cause = Foreign::new(&cause);
            Problem::new(Reason::ApiServerUnavailable, format!("{what} failed: {cause}"))
        }
    }
}

/// Whether the same call may succeed later without anybody changing an object.
pub fn is_passing(code: u16) -> bool {
    matches!(code, 401 | 408 | 409 | 429) || !(400..500).contains(&code)
}

/// Whether a write was refused because its namespace does not exist.
fn is_of_namespace_gone(status: &Status) -> bool {
    let kind = status
        .details
        .as_ref()
        .map_or("", |details| details.kind.as_str());
    status.code == 404 && kind == "namespaces"
}

/// Sends a request and reads its answer by our own code: where kube cannot decode an answer it logs the whole of it, and this
/// one holds a credential. The error does not quote the answer either.
pub async fn decoded<T: DeserializeOwned>(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<T, kube::Error> {
    let text = client.request_text(request).await?;
    serde_json::from_str(&text).map_err(|_| {
        let unreadable = "the answer cannot be read";
        kube::Error::SerdeError(serde::de::Error::custom(unreadable))
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

/// A DNS subdomain (RFC 1123), as every object name.
pub fn is_subdomain(name: &str) -> bool {
    let alnum = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            bytes.first().is_some_and(alnum)
                && bytes.last().is_some_and(alnum)
                && bytes.iter().all(|b| alnum(b) || *b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, kind: &str) -> Problem {
        let status = serde_json::json!({
            "status": "Failure", "code": code, "reason": "X", "message": "because",
            "details": {"kind": kind, "retryAfterSeconds": 3},
        });
        let status: Status = serde_json::from_value(status).unwrap();
        api_problem("writing it", CallError::Api(Box::new(status)))
    }

    #[test]
    fn what_another_try_can_mend_is_told_apart_from_what_a_person_has_to() {
        for code in [401, 408, 409, 429, 500, 502, 503, 504] {
            let problem = answered(code, "");
            assert_eq!(problem.reason, Reason::ApiServerUnavailable, "{code}");
            assert_eq!(problem.retry_after, Some(Duration::from_secs(3)));
        }
        for code in [400, 403, 404, 405, 410, 413, 415, 422] {
            let problem = answered(code, "");
            assert_eq!(problem.reason, Reason::WriteForbidden, "{code}");
            assert!(!problem.is_transient() && problem.message.contains("because"));
        }
        assert_eq!(answered(404, "namespaces").reason, Reason::NamespaceTerminating);
    }

    #[test]
    fn the_namespace_is_the_flags_else_the_pods_own_else_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("namespace");
        let refusal = namespace("--flag", None, &file).unwrap_err();
        assert!(refusal.starts_with("--flag names no namespace"), "{refusal}");
        std::fs::write(&file, "own\n").unwrap();
        assert_eq!(namespace("--flag", None, &file).unwrap(), "own");
        assert_eq!(namespace("--flag", Some(""), &file).unwrap(), "own");
        assert_eq!(namespace("--flag", Some("flag"), &file).unwrap(), "flag");
    }
}
