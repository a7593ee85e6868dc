//! Calls to our own API server: each bounded in time, each error told in one way.

use crate::{
    problem::{Problem, Reason, shortened},
    telemetry::FIELD_MANAGER,
    watch::{self, Item, Watched},
};
use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::{
    Client, Config, Resource,
    core::{ObjectMeta, Status},
};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
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
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Item<Self>, D::Error> {
        #[derive(Deserialize)]
        struct Body {
            spec: PodSpec,
            status: Option<PodStatus>,
        }
        watch::read(deserializer, |metadata, Body { spec, status }| Self {
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

/// The problem behind a failed call that the caller has no better words for.
pub fn api_problem(what: &str, error: CallError) -> Problem {
    match error {
        CallError::Api(s) if is_terminating(&s) => Problem::new(
            Reason::NamespaceTerminating,
            format!("{what} was refused because the namespace is being deleted"),
        ),
        CallError::Api(s) if s.code == 403 => Problem::new(
            Reason::WriteForbidden,
            format!("{what} was refused: {}", shortened(&s.message)),
        ),
        CallError::Api(s) => Problem::new(
            Reason::ApiServerUnavailable,
            format!(
                "{what} failed with {} {}: {}",
                s.code,
                s.reason,
                shortened(&s.message)
            ),
        ),
        CallError::Transport(cause) => {
            Problem::new(Reason::ApiServerUnavailable, format!("{what} failed: {cause}"))
        }
    }
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
