//! A namespace and the objects in it.

use crate::{
    azure::REGISTRY,
    control_plane::apply,
    eventually,
    objects::{ANNOTATION, dry_run, from, generator_spec},
    observe,
};
use acr_pull_webhook::{
    generator::ACRAccessToken,
    pull_secret::{ACRPullSecret, ACRPullSecretStatus},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Event, Namespace, Pod, Secret, ServiceAccount},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::Status,
};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use std::fmt::{Display, Formatter};

/// A namespace of a cluster. It is formatted and serialized as its name.
#[derive(Clone)]
pub struct TestNamespace {
    client: Client,
    name: String,
}

impl TestNamespace {
    /// An existing namespace.
    pub fn existing(client: &Client, name: impl Into<String>) -> Self {
        Self {
            client: client.clone(),
            name: name.into(),
        }
    }

    /// Creates a namespace with these labels.
    pub async fn create(client: &Client, name: impl Into<String>, labels: Value) -> Self {
        let namespace = Self::existing(client, name);
        let object = from(json!({"metadata": {"name": namespace.name, "labels": labels}}));
        let namespaces = Api::<Namespace>::all(client.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        namespace
    }

    /// Deletes the namespace with everything in it, and waits until it is gone.
    pub async fn delete(&self) {
        self.begin_deletion().await;
        self.wait_until_gone().await;
    }

    /// Asks for the deletion of the namespace, which ends when nothing in it has a finalizer.
    pub async fn begin_deletion(&self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let deleted = namespaces.delete(&self.name, &DeleteParams::default()).await;
        deleted.unwrap();
    }

    pub async fn wait_until_gone(&self) {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        eventually(&format!("the namespace {} is deleted", self.name), async || {
            namespaces
                .get_opt(&self.name)
                .await
                .unwrap()
                .is_none()
                .then_some(())
        })
        .await;
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn pods(&self) -> Api<Pod> {
        self.api()
    }

    pub fn pull_secrets(&self) -> Api<ACRPullSecret> {
        self.api()
    }

    pub fn secrets(&self) -> Api<Secret> {
        self.api()
    }

    pub async fn events(&self) -> Vec<Event> {
        self.api::<Event>().list(&Default::default()).await.unwrap().items
    }

    /// Creates a Pod and returns it as the API server stores it.
    pub async fn create_pod(&self, pod: &Pod) -> Pod {
        self.try_create_pod(pod).await.unwrap()
    }

    /// Creates a Pod that may be refused.
    pub async fn try_create_pod(&self, pod: &Pod) -> kube::Result<Pod> {
        observed(self.pods().create(&PostParams::default(), pod).await)
    }

    /// Creates a Pod as a controller does: it repeats the creation until the Pod is admitted.
    pub async fn retry_create_pod(&self, pod: &Pod) -> Pod {
        eventually("a Pod is admitted", async || self.try_create_pod(pod).await.ok()).await
    }

    pub async fn dry_run_pod(&self, pod: &Pod) -> kube::Result<Pod> {
        observed(self.pods().create(&dry_run(), pod).await)
    }

    /// Creates a Pod that must be refused, and returns the refusal.
    pub async fn refused_pod(&self, pod: &Pod) -> Box<Status> {
        match self.try_create_pod(pod).await {
            Ok(_) => panic!("the Pod was admitted"),
            Err(kube::Error::Api(status)) => status,
            Err(error) => panic!("{error}"),
        }
    }

    /// Deletes a Pod without a grace period.
    pub async fn delete_pod(&self, name: &str) {
        let params = DeleteParams::default().grace_period(0);
        self.pods().delete(name, &params).await.unwrap();
    }

    /// Creates or changes a service account.
    pub async fn apply_service_account(&self, name: &str, annotations: &[(&str, &str)]) {
        let annotations: Value = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(value)))
            .collect();
        let account = from(json!({"metadata": {"name": name, "annotations": annotations}}));
        apply(&self.api::<ServiceAccount>(), &account).await;
    }

    /// Creates or changes a generator for the registry with the Pod's own identity.
    pub async fn apply_generator(&self, name: &str, overrides: Value) {
        let generator = from(json!({"metadata": {"name": name}, "spec": generator_spec(overrides)}));
        apply(&self.api::<ACRAccessToken>(), &generator).await;
    }

    /// Sets or, with null, removes the label with the default generator of the namespace.
    pub async fn set_default_generator(&self, reference: Value) {
        self.set_label(ANNOTATION, reference).await;
    }

    /// Sets or, with null, removes a label of the namespace.
    pub async fn set_label(&self, key: &str, value: Value) {
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let params = PatchParams::default();
        namespaces.patch(&self.name, &params, &patch).await.unwrap();
    }

    /// The pull secret of this name.
    pub async fn pull_secret(&self, name: &str) -> ACRPullSecret {
        self.pull_secrets().get(name).await.unwrap()
    }

    /// All pull secrets in the namespace.
    pub async fn list_pull_secrets(&self) -> Vec<ACRPullSecret> {
        let list = self.pull_secrets().list(&Default::default()).await;
        list.unwrap().items
    }

    /// The status of a pull secret that has one.
    pub async fn status(&self, name: &str) -> ACRPullSecretStatus {
        let status = self.pull_secret(name).await.status;
        status.expect("the webhook has written a status")
    }

    /// When a pull secret was renewed last.
    pub async fn renewed_at(&self, name: &str) -> Timestamp {
        self.status(name).await.last_renewal_time.unwrap().0
    }

    /// When the token of a pull secret expires.
    pub async fn expires_at(&self, name: &str) -> Timestamp {
        self.status(name).await.expiration_time.unwrap().0
    }

    /// Waits until a pull secret has been renewed this many times.
    pub async fn wait_for_renewals(&self, name: &str, times: usize) {
        for _ in 0..times {
            let before = self.renewed_at(name).await;
            eventually(&format!("{name} is renewed"), async || {
                (self.renewed_at(name).await > before).then_some(())
            })
            .await;
        }
    }

    /// Waits until a pull secret has been replaced by another one with a token.
    pub async fn wait_until_recreated(&self, name: &str, uid: &Option<String>) {
        eventually(&format!("{name} is recreated"), async || {
            let found = self.pull_secrets().get_opt(name).await.unwrap()?;
            (found.metadata.uid != *uid && found.status.as_ref()?.is_ready()).then_some(())
        })
        .await;
    }

    pub async fn delete_pull_secret(&self, name: &str) {
        let params = DeleteParams::default();
        self.pull_secrets().delete(name, &params).await.unwrap();
    }

    pub async fn delete_secret(&self, name: &str) {
        let params = DeleteParams::default();
        self.secrets().delete(name, &params).await.unwrap();
    }

    /// Waits until the garbage collector of Kubernetes has deleted a Secret.
    pub async fn wait_until_secret_is_gone(&self, name: &str) {
        let secrets = self.secrets();
        eventually(&format!("the Secret {name} is deleted"), async || {
            secrets.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    /// User name and password that a kubelet finds for the registry in a Secret.
    pub async fn credentials(&self, name: &str) -> (String, String) {
        let secret = self.secrets().get(name).await.unwrap();
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/dockerconfigjson"));
        let config: Value = serde_json::from_slice(&secret.data.unwrap()[".dockerconfigjson"].0).unwrap();
        let entry = &config["auths"][REGISTRY];
        let [user, password] = ["username", "password"].map(|field| entry[field].as_str().unwrap());
        assert_eq!(entry["auth"], STANDARD.encode(format!("{user}:{password}")));
        (user.to_owned(), password.to_owned())
    }
}

/// Records the result of an attempt to create a Pod, which many tests repeat until it is the expected one.
fn observed(attempt: kube::Result<Pod>) -> kube::Result<Pod> {
    match &attempt {
        Ok(_) => observe("the API server admits the Pod"),
        Err(kube::Error::Api(status)) => observe(&status.message),
        Err(error) => observe(error),
    }
    attempt
}

impl Serialize for TestNamespace {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl Display for TestNamespace {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.name)
    }
}
