//! Pods that exist, as far as upkeep reads them.

use crate::{
    names::{self, ObjectName},
    watch::{self, Item, Watched},
};
use k8s_openapi::api::core::v1::LocalObjectReference;
use kube::{Resource, core::ObjectMeta};
use serde::{Deserialize, Deserializer, de::IgnoredAny};

/// The annotation of mirror Pods, which represent a kubelet's static Pods.
pub const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// The parts of a Pod that upkeep needs. Decoding all of `core/v1.Pod` would add much code to the binary.
#[derive(Clone, Debug, Resource)]
#[resource(inherit = "k8s_openapi::api::core::v1::Pod")]
pub struct LivePod {
    /// The name and the annotations.
    pub metadata: ObjectMeta,
    /// The desired state.
    pub spec: PodSpec,
    /// The observed state, which the kubelet reports.
    pub status: Option<PodStatus>,
}

impl LivePod {
    /// Whether all containers run, so that none of them waits for an image.
    pub fn all_containers_run(&self) -> bool {
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

    /// Whether a container waits for an image of this registry because pulling it failed.
    pub fn fails_to_pull_from(&self, registry: &str) -> bool {
        self.containers_from(registry).any(|container| {
            let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
            let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
            matches!(reason, Some("ErrImagePull" | "ImagePullBackOff"))
        })
    }

    /// Whether a container has an image of this registry, and no container waits for one because pulling it failed.
    pub fn has_pulled_from(&self, registry: &str) -> bool {
        let has_image = |container: &ContainerStatus| !container.image_id.is_empty();
        self.containers_from(registry).any(has_image) && !self.fails_to_pull_from(registry)
    }

    /// The status of the containers and init containers with an image of this registry.
    fn containers_from(&self, registry: &str) -> impl Iterator<Item = &ContainerStatus> {
        let status = self.status.iter();
        let statuses =
            status.flat_map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let containers = statuses.flatten().flatten();
        containers.filter(move |container| {
            let rest = container.image.strip_prefix(registry);
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

impl Watched for LivePod {
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

/// The parts of a Pod's spec that upkeep needs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    /// The service account that the Pod runs as.
    #[serde(default, deserialize_with = "names::optional")]
    pub service_account_name: Option<ObjectName>,
    /// The Secrets that the kubelet pulls the images with.
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
}

/// The status of a Pod's containers.
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
    #[serde(default, rename = "imageID")]
    image_id: String,
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
