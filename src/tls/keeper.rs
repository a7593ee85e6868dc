//! Keeps the secret path and, unless these are in files, the webhook's own certificates: in one Secret of its namespace,
//! published in its registration.
//!
//! Every replica does this. Each write is bound to what its writer has seen, so that of several that come to the same
//! conclusion one is first and the others see what it did.

use super::{
    Pair, Paths, SecretPath, Serving,
    authority::{Issued, Kept, Step, Terms},
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

/// Where path and certificates are kept and published.
#[derive(Clone, Debug)]
pub struct Places {
    /// Namespace and name of the Secret.
    pub secret: (String, String),
    /// Name of the MutatingWebhookConfiguration.
    pub registration: String,
}

/// After a write that failed, or that another replica was first with.
const AGAIN: Duration = Duration::from_secs(2);
/// Wall clocks are set, and machines sleep: validity is looked at now and then.
const LOOK: Duration = Duration::from_secs(30);
const NOT_YET: &str = "secret path and serving certificate";
/// Paths of before that are accepted for a while, at most: each is compared with that of each request.
const MOST_RETIRED: usize = 4;

/// The one object of its name, as the watch shows it.
struct Seen<K> {
    object: Option<Box<K>>,
    /// Whether the watch has been filled.
    known: bool,
}

/// A MutatingWebhookConfiguration, of which nothing else is read.
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

struct Keeper {
    cluster: Cluster,
    client: Client,
    places: Places,
    terms: Terms,
    serving: Serving,
    paths: Paths,
    secret: Seen<Secret>,
    registration: Seen<Registration>,
    /// What was last served, for when the Secret is gone.
    kept: Option<Kept>,
    /// Paths that the Secret names no more, each until everybody has had the time to learn of that: a Secret that somebody
    /// replaces at once, and does not rotate, costs no request.
    retired: Vec<(SecretPath, Instant)>,
    /// API servers have been told of this, and other replicas could have seen it, since then.
    published: Option<(Kept, Instant)>,
}

/// Keeps them until the process ends. Not ready from now on until they are known.
pub fn keep(
    cluster: Cluster,
    places: Places,
    terms: Terms,
    serving: Serving,
    paths: Paths,
) -> impl Future<Output = ()> {
    cluster.readiness.set_unready(NOT_YET);
    let keeper = Keeper {
        client: cluster.client.clone(),
        cluster,
        places,
        terms,
        serving,
        paths,
        secret: Seen::default(),
        registration: Seen::default(),
        kept: None,
        retired: Vec::new(),
        published: None,
    };
    keeper.run()
}

/// Why a step was not made.
enum Setback {
    /// Another replica was first: the watch will show what it did.
    Overtaken,
    Failed(String),
}

// === impl Keeper ===

impl Keeper {
    async fn run(mut self) {
        let (namespace, name) = &self.places.secret;
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
            named(&self.places.registration),
        );
        let mut wait = LOOK;
        loop {
            tokio::select! {
                Some(change) = secrets.next() => self.secret.take(change),
                Some(change) = registrations.next() => self.registration.take(change),
                () = sleep(wait) => {}
            }
            wait = match self.advance().await {
                Ok(wait) => wait.min(LOOK),
                Err(Setback::Overtaken) => AGAIN,
                Err(Setback::Failed(error)) => {
                    tracing::warn!(
                        error,
                        "the secret path and the webhook's own certificates cannot be kept; trying again"
                    );
                    AGAIN
                }
            };
        }
    }

    /// Does what is to be done, at most one write; returns when to look again.
    async fn advance(&mut self) -> Result<Duration, Setback> {
        let now = Timestamp::now();
        if !self.secret.known {
            return Ok(LOOK);
        }
        let secret = self.secret.object.as_deref();
        let version = secret.and_then(ResourceExt::resource_version);
        let data = secret.and_then(|secret| secret.data.as_ref());
        let get = |key: &str| Some(data?.get(key)?.0.as_slice());
        let found = Kept::from_data(&self.terms, get);
        let Some((kept, pair)) = found.and_then(|kept| Some((kept.clone(), self.usable(&kept, now)?))) else {
            let (kept, why) = self.remade(get, secret.is_some(), now)?;
            self.write(&kept, version).await?;
            tracing::info!(why, "secret path and serving certificate made");
            return Ok(AGAIN);
        };
        let kept = kept.without_spoilt_next(&self.terms, now);
        if let Some(pair) = &pair
            && self.serving.set(pair)
        {
            tracing::info!(ends = %pair.ends, "serving certificate in use");
        }
        self.accept(&kept);
        self.cluster.readiness.clear(NOT_YET);
        self.kept = Some(kept.clone());
        let Some(known) = self.publish(&kept).await? else {
            return Ok(AGAIN);
        };
        let served = pair.as_ref();
        let (next, what) = match kept.step(&self.terms, served, known, now) {
            Step::Wait(wait) => return Ok(wait),
            Step::Prepare => (
                kept.prepared(self.issue(served, now)?),
                "the next serving certificate and secret path are prepared",
            ),
            Step::Switch => (
                kept.switched(),
                "the next serving certificate and secret path are put to use",
            ),
            Step::Forget => (
                kept.forgotten(),
                "the authority and the secret path of before are forgotten",
            ),
        };
        self.write(&next, version).await?;
        tracing::info!("{what}");
        Ok(AGAIN)
    }

    fn usable(&self, kept: &Kept, now: Timestamp) -> Option<Option<Pair>> {
        let checked = self.terms.check(&kept.current, now);
        let pair = checked.inspect_err(|error| tracing::warn!(error, "the kept certificate is of no use"));
        pair.ok()
    }

    /// Serves the paths of this state. Those of before are served for a hold longer: an API server may still know one that
    /// another replica, which has seen less, has published.
    fn accept(&mut self, kept: &Kept) {
        let now = Instant::now();
        let mut accepted = kept.accepted_paths();
        let before = self.kept.iter().flat_map(Kept::accepted_paths);
        for path in before.filter(|path| !accepted.contains(path)) {
            if !self.retired.iter().any(|(retired, _)| *retired == path) {
                self.retired.push((path, now + self.terms.hold()));
            }
        }
        self.retired
            .retain(|(path, until)| *until > now && !accepted.contains(path));
        let surplus = self.retired.len().saturating_sub(MOST_RETIRED);
        self.retired.drain(..surplus);
        accepted.extend(self.retired.iter().map(|(path, _)| path.clone()));
        self.paths.set(accepted);
    }

    /// What to keep in place of a Secret that is gone or of no use. What is served still is served on until its successor
    /// is known, and then given up: whoever deletes a Secret may have a reason.
    fn remade<'a>(
        &self,
        get: impl Fn(&str) -> Option<&'a [u8]>,
        there: bool,
        now: Timestamp,
    ) -> Result<(Kept, &'static str), Setback> {
        let fresh = self.issue(None, now)?;
        let good = |kept: &&Kept| self.terms.check(&kept.current, now).is_ok();
        Ok(match self.kept.as_ref().filter(good) {
            Some(kept) => (
                Kept::new(kept.current.clone()).prepared(fresh),
                "the Secret was deleted or spoilt",
            ),
            None if there => (
                Kept::new(self.terms.complete(fresh, get, now)),
                "the Secret does not hold all that is needed",
            ),
            None => (Kept::new(fresh), "there was none"),
        })
    }

    fn issue(&self, served: Option<&Pair>, now: Timestamp) -> Result<Issued, Setback> {
        self.terms.issue(served, now).map_err(Setback::Failed)
    }

    /// Bound to the version that was seen; without one, to there being none.
    async fn write(&self, kept: &Kept, version: Option<String>) -> Result<(), Setback> {
        let (namespace, name) = &self.places.secret;
        let data: BTreeMap<_, _> = kept
            .to_data()
            .into_iter()
            .map(|(key, value)| (key, ByteString(value)))
            .collect();
        let api = Api::<Secret>::namespaced(self.client.clone(), namespace);
        // A Secret that a person made may be of type kubernetes.io/tls, and a type never changes.
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
        let (what, params) = (
            format!("writing Secret {namespace}/{name}"),
            PostParams::default(),
        );
        let written = match version {
            None => kubernetes::try_call(&what, api.create(&params, &secret)).await,
            Some(_) => kubernetes::try_call(&what, api.replace(name, &params, &secret)).await,
        };
        settled(&what, written)
    }

    /// Makes sure that API servers are told of this state's authorities and path; how long they have been.
    async fn publish(&mut self, kept: &Kept) -> Result<Option<Duration>, Setback> {
        let registration = match &self.registration.object {
            None if !self.registration.known => return Ok(None),
            // Nobody calls us: there is nobody to be told.
            None => return Ok(Some(Duration::MAX)),
            Some(registration) => registration,
        };
        let bundle = kept.bundle().map(|bundle| ByteString(bundle.into_bytes()));
        let path = kept.published_path().url_path();
        let hooks = registration.webhooks.iter().flatten().enumerate();
        let changes: Vec<_> = hooks
            .flat_map(|(n, hook)| hook.client_config.changes(n, bundle.as_ref(), &path))
            .collect();
        if changes.is_empty() {
            let now = Instant::now();
            let since = match &self.published {
                Some((published, since)) if published == kept => *since,
                _ => now,
            };
            self.published = Some((kept.clone(), since));
            return Ok(Some(now - since));
        }
        self.published = None;
        // Bound to what was seen, for entries have no other address than their place.
        let mut patch = vec![
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": registration.metadata.resource_version}),
        ];
        patch.extend(changes);
        let patch: json_patch::Patch = serde_json::from_value(patch.into())
            .map_err(|e| Setback::Failed(format!("the patch of the webhook configuration: {e}")))?;
        let name = &self.places.registration;
        let what = format!("publishing in MutatingWebhookConfiguration {name}");
        let api = Api::<Registration>::all(self.client.clone());
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Json::<()>(patch);
        let call = api.patch(name, &params, &patch);
        match kubernetes::try_call(&what, call).await {
            // Its test has failed (RFC 6902, section 5).
            Err(CallError::Api(status)) if status.code == 422 && status.message.contains("testing value") => {
                return Err(Setback::Overtaken);
            }
            patched => settled(&what, patched)?,
        }
        tracing::info!(name, "path and authority published");
        Ok(None)
    }
}

// === impl ClientConfig ===

impl ClientConfig {
    /// The operations that are missing for the n-th entry to name this bundle, if it is ours to name, and this path.
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
            // The API server takes no URL with a query, a fragment or a user in it.
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

fn settled<T>(what: &str, written: Result<T, CallError>) -> Result<(), Setback> {
    match written {
        Ok(_) => Ok(()),
        Err(CallError::Api(status)) if status.code == 409 => Err(Setback::Overtaken),
        Err(error) => Err(Setback::Failed(kubernetes::api_problem(what, error).message)),
    }
}

// === impl Seen ===

impl<K: Resource> Seen<K> {
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

impl<K> Default for Seen<K> {
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
    fn an_entry_gets_the_path_wherever_its_address_has_one_and_nothing_twice() {
        let bundle = ByteString(b"pem".to_vec());
        let changes = |config: Value, bundle: Option<&ByteString>| {
            let config: ClientConfig = serde_json::from_value(config).unwrap();
            let changes = config.changes(1, bundle, "/mutate/x");
            let told = changes.iter().map(|change| {
                assert_eq!(change["op"], "add");
                format!("{} {}", change["path"].as_str().unwrap(), change["value"])
            });
            told.collect::<Vec<_>>()
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
        for settled in [
            json!({"service": {"path": "/mutate/x"}, "caBundle": "cGVt"}),
            json!({"url": "https://[::1]/mutate/x", "caBundle": "cGVt"}),
        ] {
            assert!(changes(settled.clone(), Some(&bundle)).is_empty());
            assert!(changes(settled, None).is_empty());
        }
    }
}
