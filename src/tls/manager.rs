//! Manages the secret path and, unless the certificate comes from files, the webhook's own certificates: stores them in a
//! Secret and publishes path and CA in the webhook configuration.
//!
//! Every replica does this. Each write depends on the resourceVersion that its writer has read, so of several replicas with
//! the same intent one succeeds and the others see its result.

use super::{
    CertificateSlot, SecretPath, SecretPaths, ServingCertificate,
    authority::{CertificateSpec, CertificateState, Generation, Step},
};
use crate::{
    cluster::{Cluster, cluster_wide},
    kubernetes::{self, CallError},
    telemetry::FIELD_MANAGER,
    watch::{Change, Selector, Watch},
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// The objects in which path and certificates are stored and published.
#[derive(Clone, Debug)]
pub struct PublishTargets {
    /// Namespace and name of the Secret.
    pub secret: (String, String),
    /// Name of the MutatingWebhookConfiguration.
    pub registration: String,
}

/// Delay after a write that failed or conflicted.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// The validity is rechecked at this interval, because wall clocks can be set and machines can sleep.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
const READINESS_REASON: &str = "secret path and serving certificate";
/// Maximum number of retired paths that are still accepted. Each is compared with the path of each request.
const MAX_RETIRED_PATHS: usize = 4;

/// The watched object of a given name.
struct Watched<K> {
    object: Option<Box<K>>,
    /// Whether the initial list is complete.
    known: bool,
}

/// The parts of a MutatingWebhookConfiguration that the manager needs.
#[derive(Clone, Debug, Resource, Deserialize)]
#[resource(inherit = "k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration")]
struct Registration {
    metadata: ObjectMeta,
    webhooks: Option<Vec<Hook>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    client_config: ClientConfig,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    ca_bundle: Option<ByteString>,
    service: Option<Service>,
    url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Service {
    path: Option<String>,
}

struct CertificateManager {
    cluster: Cluster,
    client: Client,
    targets: PublishTargets,
    spec: CertificateSpec,
    serving: CertificateSlot,
    paths: SecretPaths,
    secret: Watched<Secret>,
    registration: Watched<Registration>,
    /// The state that was last served, in case the Secret is deleted.
    state: Option<CertificateState>,
    /// Paths that are no longer in the Secret, each with the time until which it is accepted. Until then every API server has
    /// learned of its successor, so that replacing the Secret without a rotation loses no request.
    retired: Vec<(SecretPath, Instant)>,
    /// The published state, and since when API servers and other replicas could have seen it.
    published: Option<(CertificateState, Instant)>,
}

/// Manages path and certificates until the process ends. The process is not ready until they are known.
pub fn manage(
    cluster: Cluster,
    targets: PublishTargets,
    spec: CertificateSpec,
    serving: CertificateSlot,
    paths: SecretPaths,
) -> impl Future<Output = ()> {
    cluster.readiness.set_unready(READINESS_REASON);
    let manager = CertificateManager {
        client: cluster.client.clone(),
        cluster,
        targets,
        spec,
        serving,
        paths,
        secret: Watched::default(),
        registration: Watched::default(),
        state: None,
        retired: Vec::new(),
        published: None,
    };
    manager.run()
}

/// Why a write failed.
enum WriteError {
    /// Another replica wrote first. The watch will deliver its result.
    Conflict,
    Failed(String),
}

impl CertificateManager {
    async fn run(mut self) {
        let (namespace, name) = &self.targets.secret;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let registrations = Api::<Registration>::all(self.client.clone());
        let named = |name: &str| Selector::default().fields(&format!("metadata.name={name}"));
        let mut secrets = Watch::start(
            "watch of the certificates' Secret",
            &self.cluster,
            cluster_wide(secrets),
            named(name),
        );
        let mut registrations = Watch::start(
            "watch of the webhook configuration",
            &self.cluster,
            cluster_wide(registrations),
            named(&self.targets.registration),
        );
        let mut wait = RECHECK_INTERVAL;
        loop {
            tokio::select! {
                Some(change) = secrets.next() => self.secret.take(change),
                Some(change) = registrations.next() => self.registration.take(change),
                () = sleep(wait) => {}
            }
            wait = match self.reconcile().await {
                Ok(wait) => wait.min(RECHECK_INTERVAL),
                Err(WriteError::Conflict) => RETRY_DELAY,
                Err(WriteError::Failed(error)) => {
                    tracing::warn!(
                        error,
                        "the secret path and the webhook's own certificates cannot be updated; retrying"
                    );
                    RETRY_DELAY
                }
            };
        }
    }

    /// Takes the next step, with at most one write. Returns when to check again.
    async fn reconcile(&mut self) -> Result<Duration, WriteError> {
        let now = Timestamp::now();
        if !self.secret.known {
            return Ok(RECHECK_INTERVAL);
        }
        let secret = self.secret.object.as_deref();
        let version = secret.and_then(ResourceExt::resource_version);
        let data = secret.and_then(|secret| secret.data.as_ref());
        let get = |key: &str| Some(data?.get(key)?.0.as_slice());
        let found = CertificateState::from_data(&self.spec, get);
        let Some((state, pair)) = found.and_then(|state| {
            let pair = self.usable(&state, now)?;
            Some((state, pair))
        }) else {
            let (state, why) = self.replacement(get, secret.is_some(), now)?;
            self.write(&state, version).await?;
            tracing::info!(why, "secret path and serving certificate created");
            return Ok(RETRY_DELAY);
        };
        let state = state.without_invalid_next(&self.spec, now);
        if let Some(pair) = &pair
            && self.serving.set(pair)
        {
            tracing::info!(ends = %pair.not_after, "serving certificate in use");
        }
        self.accept(&state);
        self.cluster.readiness.clear(READINESS_REASON);
        self.state = Some(state.clone());
        let Some(known) = self.publish(&state).await? else {
            return Ok(RETRY_DELAY);
        };
        let served = pair.as_ref();
        let (next, what) = match state.step(&self.spec, served, known, now) {
            Step::Wait(wait) => return Ok(wait),
            Step::Prepare => (
                state.with_next(self.issue(served, now)?),
                "the next serving certificate and secret path were created",
            ),
            Step::Switch => (
                state.switched(),
                "the next serving certificate and secret path are in use",
            ),
            Step::DropPrevious => (
                state.without_previous(),
                "the previous CA and secret path were dropped",
            ),
        };
        self.write(&next, version).await?;
        tracing::info!("{what}");
        Ok(RETRY_DELAY)
    }

    fn usable(&self, state: &CertificateState, now: Timestamp) -> Option<Option<ServingCertificate>> {
        let checked = self.spec.check(&state.current, now);
        let pair = checked.inspect_err(|error| tracing::warn!(error, "the stored certificate is not usable"));
        pair.ok()
    }

    /// Accepts the paths of this state. Earlier paths are accepted for one more propagation delay: an API server may still use a
    /// path that a replica with an older view has published.
    fn accept(&mut self, state: &CertificateState) {
        let now = Instant::now();
        let mut accepted = state.accepted_paths();
        let before = self.state.iter().flat_map(CertificateState::accepted_paths);
        for path in before.filter(|path| !accepted.contains(path)) {
            if !self.retired.iter().any(|(retired, _)| *retired == path) {
                self.retired.push((path, now + self.spec.propagation_delay()));
            }
        }
        self.retired
            .retain(|(path, until)| *until > now && !accepted.contains(path));
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED_PATHS);
        self.retired.drain(..surplus);
        accepted.extend(self.retired.iter().map(|(path, _)| path.clone()));
        self.paths.set(accepted);
    }

    /// The state that replaces a missing or invalid Secret. The served certificate and path are used until their successors are
    /// known and then dropped, because the Secret may have been deleted on purpose.
    fn replacement<'a>(
        &self,
        get: impl Fn(&str) -> Option<&'a [u8]>,
        there: bool,
        now: Timestamp,
    ) -> Result<(CertificateState, &'static str), WriteError> {
        let fresh = self.issue(None, now)?;
        let good = |state: &&CertificateState| self.spec.check(&state.current, now).is_ok();
        Ok(match self.state.as_ref().filter(good) {
            Some(state) => (
                CertificateState::new(state.current.clone()).with_next(fresh),
                "the Secret was deleted or is invalid",
            ),
            None if there => (
                CertificateState::new(self.spec.fill_missing(fresh, get, now)),
                "the Secret is incomplete",
            ),
            None => (CertificateState::new(fresh), "the Secret did not exist"),
        })
    }

    fn issue(&self, served: Option<&ServingCertificate>, now: Timestamp) -> Result<Generation, WriteError> {
        self.spec.issue(served, now).map_err(WriteError::Failed)
    }

    /// Writes the Secret if its resourceVersion is still `version`, or creates it if `version` is None.
    async fn write(&self, state: &CertificateState, version: Option<String>) -> Result<(), WriteError> {
        let (namespace, name) = &self.targets.secret;
        let data: BTreeMap<_, _> = state
            .to_data()
            .into_iter()
            .map(|(key, value)| (key, ByteString(value)))
            .collect();
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        // A Secret that a person created may have the type kubernetes.io/tls, and the type of a Secret is immutable.
        let type_ = self
            .secret
            .object
            .as_ref()
            .and_then(|secret| secret.type_.clone());
        let secret = Secret {
            type_: type_.filter(|_| version.is_some()),
            metadata: ObjectMeta {
                name: Some(name.clone()),
                resource_version: version.clone(),
                labels: Some(kubernetes::managed_by_label()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        };
        let what = format!("writing Secret {namespace}/{name}");
        let params = PostParams::default();
        let written = match version {
            None => kubernetes::try_call(&what, api.create(&params, &secret)).await,
            Some(_) => kubernetes::try_call(&what, api.replace(name, &params, &secret)).await,
        };
        check_write(&what, written)
    }

    /// Ensures that the webhook configuration has the CAs and the path of this state. Returns for how long it has had them.
    async fn publish(&mut self, state: &CertificateState) -> Result<Option<Duration>, WriteError> {
        let registration = match &self.registration.object {
            None if !self.registration.known => return Ok(None),
            // Without a webhook configuration, no API server calls this webhook.
            None => return Ok(Some(Duration::MAX)),
            Some(registration) => registration,
        };
        let bundle = state.bundle().map(|bundle| ByteString(bundle.into_bytes()));
        let path = state.published_path().url_path();
        let hooks = registration.webhooks.iter().flatten().enumerate();
        let changes: Vec<_> = hooks
            .flat_map(|(n, hook)| hook.client_config.changes(n, bundle.as_ref(), &path))
            .collect();
        if changes.is_empty() {
            let now = Instant::now();
            let since = match &self.published {
                Some((published, since)) if published == state => *since,
                _ => now,
            };
            self.published = Some((state.clone(), since));
            return Ok(Some(now - since));
        }
        self.published = None;
        // Entries are addressed by index, so the patch tests the resourceVersion that was read.
        let mut patch = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": registration.metadata.resource_version}),
        ];
        patch.extend(changes);
        let patch: json_patch::Patch = serde_json::from_value(patch.into())
            .map_err(|e| WriteError::Failed(format!("the patch of the webhook configuration: {e}")))?;
        let name = &self.targets.registration;
        let what = format!("publishing in MutatingWebhookConfiguration {name}");
        let api = Api::<Registration>::all(self.client.clone());
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Json::<()>(patch);
        let call = api.patch(name, &params, &patch);
        match kubernetes::try_call(&what, call).await {
            // The `test` operation failed (RFC 6902, section 5).
            Err(CallError::Api(status)) if status.code == 422 && status.message.contains("testing value") => {
                return Err(WriteError::Conflict);
            }
            patched => check_write(&what, patched)?,
        }
        tracing::info!(name, "path and CA published");
        Ok(None)
    }
}

impl ClientConfig {
    /// The patch operations needed for the n-th entry to have this path and, if the webhook issues its certificates, this bundle.
    fn changes(&self, n: usize, bundle: Option<&ByteString>, path: &str) -> Vec<Value> {
        let place = format!("/webhooks/{n}/clientConfig");
        let add =
            |key: &str, value: Value| json!({"op": "add", "path": format!("{place}/{key}"), "value": value});
        let mut changes = Vec::new();
        if let Some(bundle) = bundle
            && self.ca_bundle.as_ref() != Some(bundle)
        {
            changes.push(add("caBundle", json!(bundle)));
        }
        match (&self.service, &self.url) {
            (Some(service), _) if service.path.as_deref() != Some(path) => {
                changes.push(add("service/path", json!(path)));
            }
            // The API server refuses a URL with a query, a fragment or user information.
            (None, Some(url)) => {
                let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
                let host = rest.split('/').next().unwrap_or_default();
                let wanted = format!("{scheme}://{host}{path}");
                if *url != wanted {
                    changes.push(add("url", json!(wanted)));
                }
            }
            _ => {}
        }
        changes
    }
}

fn check_write<T>(what: &str, written: Result<T, CallError>) -> Result<(), WriteError> {
    match written {
        Ok(_) => Ok(()),
        Err(CallError::Api(status)) if status.code == 409 => Err(WriteError::Conflict),
        Err(error) => Err(WriteError::Failed(kubernetes::api_problem(what, error).message)),
    }
}

impl<K: Resource> Watched<K> {
    fn take(&mut self, change: Change<K>) {
        match change {
            Change::Applied(object) => self.object = Some(Box::new(object)),
            Change::Deleted(_) => self.object = None,
            Change::Relisted(_, all) if all.is_empty() => self.object = None,
            Change::Synced => self.known = true,
            Change::Relisted(..) | Change::Stale(_) | Change::Recovered(_) => {}
        }
    }
}

impl<K> Default for Watched<K> {
    fn default() -> Self {
        Self {
            object: None,
            known: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_bundles_and_paths_are_patched() {
        let bundle = ByteString(b"pem".to_vec());
        let changes = |config: Value, bundle: Option<&ByteString>| {
            let config: ClientConfig = serde_json::from_value(config).unwrap();
            let changes = config.changes(1, bundle, "/mutate/x");
            let paths = changes.iter().map(|change| {
                assert_eq!(change["op"], "add");
                format!("{} {}", change["path"].as_str().unwrap(), change["value"])
            });
            paths.collect::<Vec<_>>()
        };
        let service = "/webhooks/1/clientConfig/service/path \"/mutate/x\"";
        let ca = "/webhooks/1/clientConfig/caBundle \"cGVt\"";
        assert_eq!(
            changes(json!({"service": {"name": "a"}}), Some(&bundle)),
            [ca, service]
        );
        assert_eq!(changes(json!({"service": {"path": "/mutate"}}), None), [service]);
        for url in [
            "https://host:8443",
            "https://host:8443/",
            "https://host:8443/mutate",
        ] {
            let url = changes(json!({"url": url, "caBundle": "cGVt"}), Some(&bundle));
            assert_eq!(
                url,
                ["/webhooks/1/clientConfig/url \"https://host:8443/mutate/x\""]
            );
        }
        for check_write in [
            json!({"service": {"path": "/mutate/x"}, "caBundle": "cGVt"}),
            json!({"url": "https://[::1]/mutate/x", "caBundle": "cGVt"}),
        ] {
            assert!(changes(check_write.clone(), Some(&bundle)).is_empty());
            assert!(changes(check_write, None).is_empty());
        }
    }
}
