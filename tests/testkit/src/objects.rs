//! Kubernetes objects as tests write them, and what tests read of them.

use crate::azure::REGISTRY;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::PostParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub const ANNOTATION: &str = "acr-pull.dev/access-token";
pub const CLIENT_ID: &str = "azure.workload.identity/client-id";
pub const TENANT_ID: &str = "azure.workload.identity/tenant-id";

/// An object from its JSON.
pub fn from<K: DeserializeOwned>(json: Value) -> K {
    serde_json::from_value(json).unwrap()
}

/// The JSON of a Pod of service account `app` with one container.
pub fn pod_json(name: &str, image: &str, annotations: Value) -> Value {
    json!({
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "serviceAccountName": "app",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "app", "image": image, "imagePullPolicy": "Always"}],
        },
    })
}

/// A Pod of service account `app` with this annotation and an image of team A.
pub fn pod(name: &str, annotation: &str) -> Pod {
    let image = format!("{REGISTRY}/team-a/app:1");
    from(pod_json(name, &image, json!({ANNOTATION: annotation})))
}

/// The same Pod with a name that the API server generates.
pub fn unnamed_pod(annotation: &str) -> Pod {
    let mut pod = pod("", annotation);
    pod.metadata.name = None;
    pod.metadata.generate_name = Some("next-".to_owned());
    pod
}

/// A Pod of the service account and the generator of this name, with a name that the API server generates.
pub fn pod_of(workload: &str) -> Pod {
    with_account(unnamed_pod(workload), workload)
}

/// The Pod with another service account.
pub fn with_account(mut pod: Pod, account: &str) -> Pod {
    pod.spec.as_mut().unwrap().service_account_name = Some(account.to_owned());
    pod
}

/// Parameters of a creation that is not persisted.
pub fn dry_run() -> PostParams {
    PostParams {
        dry_run: true,
        ..PostParams::default()
    }
}

/// The spec of a generator for the registry with the Pod's own identity. A field of `overrides` replaces a field of the
/// spec; null removes it.
pub fn generator_spec(overrides: Value) -> Value {
    let tenant = crate::azure::TENANT;
    let mut spec = json!({"registry": REGISTRY, "tenantId": tenant, "auth": {"workloadIdentity": {}}});
    let fields = spec.as_object_mut().unwrap();
    let Value::Object(overrides) = overrides else {
        panic!("{overrides} is not an object");
    };
    for (key, value) in overrides {
        match value {
            Value::Null => fields.remove(&key),
            value => fields.insert(key, value),
        };
    }
    spec
}

/// The spec of a ClusterGenerator that contains the spec of a generator.
pub fn cluster_generator_spec(overrides: Value) -> Value {
    json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": generator_spec(overrides)}})
}

/// The names of a Pod's pull secrets.
pub fn pull_secret_names(pod: &Pod) -> Vec<String> {
    let secrets = pod.spec.as_ref().unwrap().image_pull_secrets.iter().flatten();
    secrets.map(|secret| secret.name.clone()).collect()
}

/// The name of the only pull secret of a Pod.
pub fn pull_secret_name(pod: &Pod) -> String {
    let names = pull_secret_names(pod);
    assert_eq!(names.len(), 1, "{} names {names:?}", pod.name_any());
    names[0].clone()
}
