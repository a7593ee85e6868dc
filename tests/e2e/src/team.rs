//! Teams: each a namespace with a service account `app`, an application in Azure, and
//! one private image. A test takes a team for itself.

use crate::{
    azure::{self, REGISTRY, TENANT},
    eventually,
};
use acr_pull_webhook::{generator::ACRAccessToken, pull_secret::ACRPullSecret};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod, Secret, ServiceAccount};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

pub const ANNOTATION: &str = "acr-pull.dev/access-token";

/// A team, by number.
#[derive(Clone, Copy)]
pub struct Team(u8);

/// All teams. Azure is told of them before the first test.
pub const TEAMS: [Team; 27] = {
    let mut teams = [Team(0); 27];
    let mut n = 0;
    while n < teams.len() {
        teams[n] = Team(n as u8);
        n += 1;
    }
    teams
};

/// The team whose image managed identities may pull. `make e2e` lets its namespace use them.
pub const MACHINES: Team = TEAMS[18];

/// A team's namespace on the cluster, with everything in it but Pods.
pub struct Settled {
    pub client: Client,
    pub team: Team,
}

// === impl Team ===

impl Team {
    pub fn namespace(self) -> String {
        format!("acr-pull-e2e-{}", self.0)
    }

    pub fn client_id(self) -> String {
        format!("3f0c51a7-0000-4000-8000-0000000001{:02x}", self.0)
    }

    pub fn repository(self) -> String {
        format!("e2e/team-{}", self.0)
    }

    pub fn image(self) -> String {
        format!("{REGISTRY}/{}:1", self.repository())
    }

    pub fn subject(self) -> String {
        format!("system:serviceaccount:{}:app", self.namespace())
    }

    /// Makes the namespace anew, with the service account and the generator `contoso`; `spec` overrides.
    pub async fn settle(self, client: &Client, spec: Value) -> Settled {
        let settled = self.settle_namespace(client).await;
        settled.settle_identity(spec).await;
        settled
    }

    /// Makes the namespace anew, empty.
    pub async fn settle_namespace(self, client: &Client) -> Settled {
        azure::ready(client).await;
        let namespaces = Api::<Namespace>::all(client.clone());
        let name = self.namespace();
        if namespaces.get_opt(&name).await.unwrap().is_some() {
            let _ = namespaces.delete(&name, &DeleteParams::default()).await;
            eventually("the namespace of an earlier run is gone", async || {
                namespaces.get_opt(&name).await.unwrap().is_none().then_some(())
            })
            .await;
        }
        create(&namespaces, json!({"metadata": {"name": name}})).await;
        Settled {
            client: client.clone(),
            team: self,
        }
    }
}

// === impl Settled ===

impl Settled {
    /// The service account `app`, as the team's application in Azure.
    pub async fn settle_account(&self) {
        let annotations = json!({
            "azure.workload.identity/client-id": self.team.client_id(),
            "azure.workload.identity/tenant-id": TENANT,
        });
        create(
            &self.api::<ServiceAccount>(),
            json!({"metadata": {"name": "app", "annotations": annotations}}),
        )
        .await;
    }

    /// The service account and the generator `contoso`, in one go.
    pub async fn settle_identity(&self, spec: Value) {
        self.settle_account().await;
        self.generator("contoso", spec).await;
    }

    /// A generator for the registry by the Pod's own identity; `spec` overrides.
    pub async fn generator(&self, name: &str, spec: Value) {
        let mut whole = json!({"registry": REGISTRY, "auth": {"workloadIdentity": {}}});
        for (key, value) in spec.as_object().unwrap() {
            whole[key] = value.clone();
        }
        create(
            &self.api::<ACRAccessToken>(),
            json!({"metadata": {"name": name}, "spec": whole}),
        )
        .await;
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.team.namespace())
    }

    /// Creates a Pod of the service account `app`, pulling `image`, annotated or not.
    pub async fn create_pod(&self, name: &str, image: &str, annotation: Option<&str>) -> Pod {
        let annotations = annotation.map_or(json!({}), |value| json!({ANNOTATION: value}));
        create(&self.api::<Pod>(), pod(name, image, annotations)).await
    }

    /// Creates a Pod that may be refused.
    pub async fn try_create_pod(&self, pod: Value) -> kube::Result<Pod> {
        let pod = serde_json::from_value(pod).unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await
    }

    /// Creates such a Pod that must be refused, and returns why it was.
    pub async fn refused_pod(&self, name: &str, image: &str, annotation: &str) -> String {
        let pod = pod(name, image, json!({ANNOTATION: annotation}));
        match self.try_create_pod(pod).await {
            Ok(_) => panic!("the Pod was admitted"),
            Err(error) => error.to_string(),
        }
    }

    /// How many Pods there are in the namespace.
    pub async fn pods_made(&self) -> usize {
        self.api::<Pod>()
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .len()
    }

    /// Waits until the Pod runs.
    pub async fn runs(&self, name: &str) {
        let pods = self.api::<Pod>();
        eventually(&format!("{}/{name} runs", self.team.namespace()), async || {
            let status = pods.get(name).await.unwrap().status?;
            status.container_statuses?.iter().all(|c| c.ready).then_some(())
        })
        .await;
    }

    /// Waits until the Pod's image was refused.
    pub async fn cannot_pull(&self, name: &str) {
        let pods = self.api::<Pod>();
        eventually(
            &format!("{}/{name} is in ImagePullBackOff", self.team.namespace()),
            async || {
                let status = pods.get(name).await.unwrap().status?;
                let container = status.container_statuses?.into_iter().next()?;
                assert!(
                    container.state.as_ref().is_none_or(|s| s.running.is_none()),
                    "{name} runs"
                );
                (container.state?.waiting?.reason? == "ImagePullBackOff").then_some(())
            },
        )
        .await;
    }

    /// The Events of the Pod that tell of trouble with its image or its pull secret.
    pub async fn pull_troubles(&self, name: &str) -> Vec<String> {
        let events = self.api::<Event>().list(&Default::default()).await.unwrap();
        let about = events
            .items
            .into_iter()
            .filter(|e| e.involved_object.name.as_deref() == Some(name));
        about
            .filter(|e| e.type_.as_deref() == Some("Warning"))
            // Of a volume, such as that of the Pod's own token, which a busy kubelet does not always mount at once.
            .filter(|e| e.reason.as_deref() != Some("FailedMount"))
            .map(|e| {
                format!(
                    "{}: {}",
                    e.reason.unwrap_or_default(),
                    e.message.unwrap_or_default()
                )
            })
            .collect()
    }

    /// The pull secrets that the webhook wrote in the namespace.
    pub async fn pull_secrets(&self) -> Vec<ACRPullSecret> {
        let api = self.api::<ACRPullSecret>();
        api.list(&Default::default()).await.unwrap().items
    }

    /// The one pull secret that the webhook wrote in the namespace.
    pub async fn pull_secret(&self) -> ACRPullSecret {
        let all = self.pull_secrets().await;
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap()
    }

    /// The Secret of that name.
    pub async fn secret(&self, name: &str) -> Secret {
        self.api::<Secret>().get(name).await.unwrap()
    }
}

/// A Pod of the service account `app`, pulling `image`.
pub fn pod(name: &str, image: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "serviceAccountName": "app",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Always"}],
        },
    })
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap())
        .await
        .unwrap()
}
