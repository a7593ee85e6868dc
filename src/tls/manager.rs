//! Manages the secret path and, unless the certificate comes from files, the webhook's own certificates. They are
//! stored in one Secret and published in the MutatingWebhookConfiguration.
//!
//! Every replica does this. A write only succeeds if the object still has the version that the replica has seen. If
//! several replicas make the same decision, one of them writes and the others see its result.

use super::{
    AcceptedPaths, CertificateAndKey, CertificateSlot, CertificateSpec, SecretPath,
    credentials::ServingCredentials,
    field_managers::{self, ChangedBy},
    state::{CertificateState, RotationStep},
    watched_object::WatchedObject,
    webhook_configuration::WebhookConfiguration,
};
use crate::{
    cluster::{Cluster, cluster_wide},
    kubernetes::{self, CallError},
    names::NamespacedName,
    telemetry::{FIELD_MANAGER, UnreadyReason},
    watch::{Selector, Watch},
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
};
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, sleep};

/// The wait after a write, a failed write, or a conflict with another replica.
const RETRY_DELAY: Duration = Duration::from_secs(2);
/// Validity is checked at least this often, because wall clocks are adjusted and machines sleep.
const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How a field manager is made to ignore what the webhook publishes.
const OVERWRITTEN_LINK: &str = "https://acr-pull.dev/certificates.html#the-secret-path";
const UNREADY_REASON: &str = "secret path and serving certificate";
/// The maximum number of retired paths that are still accepted. Each request is compared with each path.
const MAX_RETIRED_PATHS: usize = 4;

/// The objects in which the path and the certificates are stored and published.
#[derive(Clone, Debug)]
pub struct PublishTargets {
    /// The namespace and the name of the Secret.
    pub secret: NamespacedName,
    /// The name of the MutatingWebhookConfiguration.
    pub webhook_configuration: String,
}

/// Manages the path and the certificates until the process ends. The process is unready until they are known.
pub fn manage(
    cluster: Cluster,
    targets: PublishTargets,
    spec: CertificateSpec,
    slot: CertificateSlot,
    paths: AcceptedPaths,
) -> impl Future<Output = ()> {
    let manager = CertificateManager {
        client: cluster.client.clone(),
        unready: cluster.readiness.unready(UNREADY_REASON),
        cluster,
        targets,
        spec,
        slot,
        paths,
        secret: WatchedObject::default(),
        webhook_configuration: WatchedObject::default(),
        last_served: None,
        retired: Vec::new(),
        published: None,
        overwritten: false,
    };
    manager.run()
}

struct CertificateManager {
    cluster: Cluster,
    client: Client,
    /// Set until the path and the certificates are known.
    unready: UnreadyReason,
    targets: PublishTargets,
    spec: CertificateSpec,
    slot: CertificateSlot,
    paths: AcceptedPaths,
    secret: WatchedObject<Secret>,
    webhook_configuration: WatchedObject<WebhookConfiguration>,
    /// Restored if the Secret is deleted.
    last_served: Option<CertificateState>,
    /// Paths that are no longer in the Secret, each accepted until the change is known everywhere. If somebody replaces
    /// the Secret without a rotation, no request fails.
    retired: Vec<(SecretPath, Instant)>,
    /// The published state, and since when API servers and other replicas can see it.
    published: Option<(CertificateState, Instant)>,
    /// Whether the published state was changed since this replica last saw it.
    overwritten: bool,
}

impl CertificateManager {
    async fn run(mut self) {
        let NamespacedName { namespace, name } = &self.targets.secret;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), namespace);
        let configurations = Api::<WebhookConfiguration>::all(self.client.clone());
        let named = |name: &str| Selector::default().fields(&format!("metadata.name={name}"));
        let mut secrets = Watch::start(
            "watch of the certificates' Secret",
            &self.cluster,
            cluster_wide(secrets),
            named(name),
        );
        let mut configurations = Watch::start(
            "watch of the webhook configuration",
            &self.cluster,
            cluster_wide(configurations),
            named(&self.targets.webhook_configuration),
        );
        let mut wait = RECHECK_INTERVAL;
        loop {
            tokio::select! {
                Some(change) = secrets.next() => self.secret.apply(change),
                Some(change) = configurations.next() => self.webhook_configuration.apply(change),
                () = sleep(wait) => {}
            }
            wait = match self.reconcile().await {
                Ok(wait) => wait.min(RECHECK_INTERVAL),
                Err(WriteError::Conflict) => RETRY_DELAY,
                Err(WriteError::Failed(error)) => {
                    tracing::warn!(
                        error,
                        "managing the secret path and the webhook's own certificates failed; trying again"
                    );
                    RETRY_DELAY
                }
            };
        }
    }

    /// Makes at most one write. Returns the time until the next call.
    async fn reconcile(&mut self) -> Result<Duration, WriteError> {
        let now = Timestamp::now();
        if !self.secret.synced {
            return Ok(RECHECK_INTERVAL);
        }
        let secret = self.secret.object.as_deref();
        let version = secret.and_then(ResourceExt::resource_version);
        let data = secret.and_then(|secret| secret.data.as_ref());
        let get = |key: &str| Some(data?.get(key)?.0.as_slice());
        let stored = CertificateState::from_data(&self.spec, get);
        let valid = stored.and_then(|state| Some((state.clone(), self.check(&state, now)?)));
        let Some((state, certificate)) = valid else {
            let (state, why) = self.replacement(get, secret.is_some(), now)?;
            self.write(&state, version).await?;
            tracing::info!(why, "secret path and serving certificate created");
            return Ok(RETRY_DELAY);
        };
        let state = state.without_invalid_next(&self.spec, now);
        if let Some(certificate) = &certificate
            && self.slot.set(certificate)
        {
            tracing::info!(ends = %certificate.not_after, "serving certificate in use");
        }
        self.set_accepted_paths(&state);
        self.unready.clear();
        self.last_served = Some(state.clone());
        let Some(published_for) = self.publish(&state).await? else {
            return Ok(RETRY_DELAY);
        };
        let served = certificate.as_ref();
        let (next, message) = match state.next_step(&self.spec, served, published_for, now) {
            RotationStep::Wait(wait) => return Ok(wait),
            RotationStep::Prepare => (
                state.prepared(self.issue(served, now)?),
                "next serving certificate and secret path created",
            ),
            RotationStep::Switch => (
                state.switched(),
                "switched to the next serving certificate and secret path",
            ),
            RotationStep::DropPrevious => (state.without_previous(), "previous CA and secret path dropped"),
        };
        self.write(&next, version).await?;
        tracing::info!("{message}");
        Ok(RETRY_DELAY)
    }

    fn check(&self, state: &CertificateState, now: Timestamp) -> Option<Option<CertificateAndKey>> {
        let checked = self.spec.check(&state.current, now);
        let certificate =
            checked.inspect_err(|error| tracing::warn!(error, "the stored certificate is not valid"));
        certificate.ok()
    }

    /// Accepts the paths of this state. Earlier paths are accepted until the change is known everywhere: an API server
    /// may still use one that a replica with an older state has published.
    fn set_accepted_paths(&mut self, state: &CertificateState) {
        let now = Instant::now();
        let mut accepted = state.accepted_paths();
        let before = self.last_served.iter();
        let before = before.flat_map(CertificateState::accepted_paths);
        for path in before.filter(|path| !accepted.contains(path)) {
            if !self.retired.iter().any(|(retired, _)| *retired == path) {
                self.retired.push((path, now + self.spec.propagation_time()));
            }
        }
        self.retired
            .retain(|(path, until)| *until > now && !accepted.contains(path));
        let surplus = self.retired.len().saturating_sub(MAX_RETIRED_PATHS);
        self.retired.drain(..surplus);
        accepted.extend(self.retired.iter().map(|(path, _)| path.clone()));
        self.paths.set(accepted);
    }

    /// The state that replaces a deleted or invalid Secret. A certificate that is still valid is served until its
    /// successor is known, and then dropped, because a Secret may have been deleted on purpose.
    fn replacement<'a>(
        &self,
        get: impl Fn(&str) -> Option<&'a [u8]>,
        exists: bool,
        now: Timestamp,
    ) -> Result<(CertificateState, &'static str), WriteError> {
        let fresh = self.issue(None, now)?;
        let is_valid = |state: &&CertificateState| self.spec.check(&state.current, now).is_ok();
        Ok(match self.last_served.as_ref().filter(is_valid) {
            Some(state) => (
                CertificateState::new(state.current.clone()).prepared(fresh),
                "the Secret was deleted or made invalid",
            ),
            None if exists => (
                CertificateState::new(self.spec.complete(fresh, get, now)),
                "the Secret is incomplete or invalid",
            ),
            None => (CertificateState::new(fresh), "the Secret did not exist"),
        })
    }

    fn issue(
        &self,
        served: Option<&CertificateAndKey>,
        now: Timestamp,
    ) -> Result<ServingCredentials, WriteError> {
        self.spec.issue(served, now).map_err(WriteError::Failed)
    }

    /// Replaces the Secret if it still has this version. Without a version, creates it.
    async fn write(&self, state: &CertificateState, version: Option<String>) -> Result<(), WriteError> {
        let NamespacedName { namespace, name } = &self.targets.secret;
        let data: BTreeMap<_, _> = state
            .to_data()
            .into_iter()
            .map(|(key, value)| (key, ByteString(value)))
            .collect();
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        // A Secret that a person created may have the type kubernetes.io/tls, and types are immutable.
        let type_ = self
            .secret
            .object
            .as_ref()
            .and_then(|secret| secret.type_.clone());
        let secret = Secret {
            type_: type_.filter(|_| version.is_some()),
            metadata: ObjectMeta {
                name: Some(name.to_string()),
                resource_version: version.clone(),
                labels: Some(kubernetes::managed_by_label()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..Secret::default()
        };
        let call = format!("writing Secret {namespace}/{name}");
        let params = PostParams::default();
        let written = match version {
            None => kubernetes::try_call(&call, api.create(&params, &secret)).await,
            Some(_) => kubernetes::try_call(&call, api.replace(name, &params, &secret)).await,
        };
        WriteError::from_result(&call, written)
    }

    /// Publishes the CAs and the path of this state to the API servers. Returns how long they have been published, or
    /// None if that has just been done or cannot be known yet.
    async fn publish(&mut self, state: &CertificateState) -> Result<Option<Duration>, WriteError> {
        let configuration = match &self.webhook_configuration.object {
            None if !self.webhook_configuration.synced => return Ok(None),
            // No API server calls the webhook, so none has to learn of the state.
            None => return Ok(Some(Duration::MAX)),
            Some(configuration) => configuration,
        };
        let bundle = state.ca_bundle().map(|bundle| ByteString(bundle.into_bytes()));
        let patch = configuration.patch(bundle.as_ref(), &state.published_path().url_path());
        if patch.is_empty() {
            let now = Instant::now();
            let since = match &self.published {
                Some((published, since)) if published == state => *since,
                _ => now,
            };
            self.published = Some((state.clone(), since));
            self.overwritten = false;
            return Ok(Some(now - since));
        }
        if let Some((published, _)) = self.published.take() {
            self.overwritten = published == *state;
        }
        // Asked before the patch, which makes the webhook the owner of the fields again.
        let changed_by = match self.overwritten {
            true => {
                let configuration = &self.targets.webhook_configuration;
                let found = field_managers::changed_by(&self.client, configuration, bundle.is_some()).await;
                found.unwrap_or(ChangedBy::Unknown)
            }
            false => ChangedBy::Replica,
        };
        let patch: json_patch::Patch = serde_json::from_value(patch.into())
            .map_err(|e| WriteError::Failed(format!("the patch of the webhook configuration: {e}")))?;
        let name = &self.targets.webhook_configuration;
        let call = format!("publishing in MutatingWebhookConfiguration {name}");
        let api = Api::<WebhookConfiguration>::all(self.client.clone());
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Json::<()>(patch);
        match kubernetes::try_call(&call, api.patch(name, &params, &patch)).await {
            // The patch's test operation failed (RFC 6902, section 5).
            Err(CallError::Api(status)) if status.code == 422 && status.message.contains("testing value") => {
                return Err(WriteError::Conflict);
            }
            patched => WriteError::from_result(&call, patched)?,
        }
        tracing::info!(name, "secret path and CA published");
        // Only the replica whose patch succeeds reports the change.
        match changed_by {
            ChangedBy::Replica => {}
            ChangedBy::Manager(name) => self.report_overwritten(&format!("field manager {name}")),
            ChangedBy::Unknown => self.report_overwritten("an unknown field manager"),
        }
        Ok(None)
    }

    /// Reports that another field manager has changed what was published. Until it was published again, API servers could
    /// not call the webhook.
    fn report_overwritten(&self, manager: &str) {
        let name = &self.targets.webhook_configuration;
        self.cluster.metrics.count_registration_repair();
        tracing::warn!(
            name,
            manager,
            "caBundle or path were changed by another field manager and published again"
        );
        let note = format!(
            "caBundle or path of MutatingWebhookConfiguration {name} were changed by {manager}, and API servers could not \
             call the webhook until it wrote them again: that manager must ignore both; see {OVERWRITTEN_LINK}"
        );
        let events = &self.cluster.events;
        events.warn_about_own_pod("webhook configuration", "RegistrationOverwritten", &note);
    }
}

/// The reason why a step of the manager failed.
enum WriteError {
    /// Another replica has changed the object. The watch will show its change.
    Conflict,
    Failed(String),
}

impl WriteError {
    fn from_result<T>(call: &str, result: Result<T, CallError>) -> Result<(), Self> {
        match result {
            Ok(_) => Ok(()),
            Err(CallError::Api(status)) if status.code == 409 => Err(Self::Conflict),
            Err(error) => Err(Self::Failed(kubernetes::api_problem(call, error).sentence())),
        }
    }
}
