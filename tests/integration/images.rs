//! The images of a Pod: every field that holds one, as the API server's own schema lists them, and every way to name
//! the registry.

use azure_emulator::Endpoint;
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};
use testkit::{
    azure::add_registry,
    env::TestEnv,
    eventually,
    objects::{ANNOTATION, pod, pull_secret_name, pull_secret_names},
    review::{post, review},
};

/// A regional endpoint of the registry, which is a host of its own for a kubelet.
const REGIONAL: &str = "contoso.eastus2.geo.azurecr.io";
const POD_SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const IMAGE: &str = "contoso.azurecr.io/team-a/app:1";
/// The segment of a path that stands for an item of a list.
const ITEM: &str = "[]";
/// The fields with an image that Kubernetes 1.30 to 1.37 have. The schema may add some.
const KNOWN_IMAGES: [&str; 4] = [
    "containers/[]/image",
    "initContainers/[]/image",
    "ephemeralContainers/[]/image",
    "volumes/[]/image/reference",
];
/// The texts with `image` in their path that are not the image of a container registry.
const OTHER_TEXTS: [&str; 6] = [
    "containers/[]/imagePullPolicy",
    "initContainers/[]/imagePullPolicy",
    "ephemeralContainers/[]/imagePullPolicy",
    "imagePullSecrets/[]/name",
    "volumes/[]/image/pullPolicy",
    // The image of a disk in a Ceph cluster.
    "volumes/[]/rbd/image",
];

/// The schemas of the core API group.
async fn core_schemas(client: &Client) -> Value {
    let request = Request::get("/openapi/v3/api/v1").body(Vec::new()).unwrap();
    let mut document: Value = client.request(request).await.unwrap();
    document["components"]["schemas"].take()
}

/// Adds the paths of all texts beneath this schema in which a segment contains `image`.
fn collect_image_texts(schemas: &Value, schema: &Value, path: &[&str], found: &mut Vec<String>) {
    assert!(path.len() < 32, "the schema of a Pod is recursive at {path:?}");
    let reference = schema["allOf"][0]["$ref"].as_str().or(schema["$ref"].as_str());
    if let Some(reference) = reference {
        let name = reference.rsplit('/').next().unwrap();
        return collect_image_texts(schemas, &schemas[name], path, found);
    }
    let has_image = || {
        path.iter()
            .any(|segment| segment.to_lowercase().contains("image"))
    };
    if schema["type"] == "string" && has_image() {
        found.push(path.join("/"));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        collect_image_texts(schemas, property, &[path, &[name]].concat(), found);
    }
    for items in [&schema["items"], &schema["additionalProperties"]] {
        if items.is_object() {
            collect_image_texts(schemas, items, &[path, &[ITEM]].concat(), found);
        }
    }
}

/// A value with this text at this path.
fn text_at(path: &str, text: &str) -> Value {
    path.rsplit('/')
        .fold(json!(text), |value, segment| match segment {
            ITEM => json!([value]),
            name => json!({ name: value }),
        })
}

#[testkit::test]
async fn every_field_of_a_pod_that_holds_an_image_is_read() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let schemas = core_schemas(&env.client).await;
    let mut fields = Vec::new();
    collect_image_texts(&schemas, &schemas[POD_SPEC], &[], &mut fields);
    for known in KNOWN_IMAGES.into_iter().chain(OTHER_TEXTS) {
        assert!(
            fields.iter().any(|field| field == known),
            "{known} is not in {fields:?}"
        );
    }
    fields.retain(|field| !OTHER_TEXTS.contains(&field.as_str()));
    for field in fields {
        // A Pod as the API server sends it, but with the text in this field only.
        let metadata = json!({"name": "app", "annotations": {ANNOTATION: "contoso"}});
        let mut review = review(namespace, &Pod::default());
        let mut spec = text_at(&field, IMAGE);
        spec["serviceAccountName"] = json!("app");
        review["request"]["object"] = json!({"metadata": metadata, "spec": spec});
        let answer = post(&env, &review).await;
        assert_eq!(answer["response"]["allowed"], true, "{field}: {answer}");
        assert!(
            answer["response"]["warnings"].is_null(),
            "the webhook does not read the image in spec/{field}; read it in PodView::registries, or add it to OTHER_TEXTS \
             if it is not the image of a registry: {answer}"
        );
    }
}

/// A Pod with this image.
fn pod_with(image: &str, annotation: Option<&str>) -> Pod {
    let mut pod = pod("app", annotation.unwrap_or_default());
    if annotation.is_none() {
        pod.metadata.annotations = None;
    }
    pod.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
    pod
}

/// Waits until the default generator `contoso` applies to the Pods of team A.
async fn set_default(env: &TestEnv) {
    let namespace = &env.team_a.namespace;
    namespace.set_default_generator(json!("contoso")).await;
    eventually("the label applies", async || {
        let created = namespace.dry_run_pod(&pod_with(IMAGE, None)).await.unwrap();
        pull_secret_names(&created).pop()
    })
    .await;
}

#[testkit::test]
async fn an_image_needs_neither_a_tag_nor_a_digest() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    set_default(&env).await;
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    for image in [
        "contoso.azurecr.io/app".to_owned(),
        "contoso.azurecr.io/team-a/web/app".to_owned(),
        format!("contoso.azurecr.io/team-a/app@{digest}"),
        format!("contoso.azurecr.io/team-a/app:1@{digest}"),
    ] {
        for annotation in [None, Some("contoso")] {
            let pod = pod_with(&image, annotation);
            pull_secret_name(&namespace.dry_run_pod(&pod).await.unwrap());
            assert!(env.warnings(namespace, &pod).await.is_empty(), "{image}");
        }
    }
}

/// A kubelet compares the registry in the image with the entry of the pull secret, including case and port.
#[testkit::test]
async fn an_image_with_a_port_or_in_upper_case_causes_a_warning() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    set_default(&env).await;
    for registry in [
        "contoso.azurecr.io:443",
        "Contoso.azurecr.io",
        "CONTOSO.AZURECR.IO:443",
    ] {
        for annotation in [None, Some("contoso")] {
            let pod = pod_with(&format!("{registry}/team-a/app:1"), annotation);
            let warnings = env.warnings(namespace, &pod).await;
            let [warning] = &*warnings else {
                panic!("{registry} {annotation:?}: {warnings:?}");
            };
            for text in [
                registry,
                "write contoso.azurecr.io in lower case and without a port",
            ] {
                assert!(warning.contains(text), "{text}: {warning}");
            }
            // The webhook adds the pull secret nevertheless: another image of the Pod may need it.
            pull_secret_name(&namespace.dry_run_pod(&pod).await.unwrap());
        }
    }
}

#[testkit::test]
async fn a_regional_endpoint_is_a_registry_of_its_own() {
    let env = TestEnv::with(&[], |world| add_registry(world, REGIONAL)).await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("regional", json!({"registry": REGIONAL}))
        .await;
    let image = format!("{REGIONAL}/team-a/app:1");
    let name = pull_secret_name(&namespace.create_pod(&pod_with(&image, Some("regional"))).await);
    let secret = namespace.secrets().get(&name).await.unwrap().data.unwrap();
    let config: Value = serde_json::from_slice(&secret[".dockerconfigjson"].0).unwrap();
    let hosts: Vec<_> = config["auths"].as_object().unwrap().keys().collect();
    assert_eq!(hosts, [REGIONAL]);
    // The emulator refuses an exchange for the name of another host.
    let exchanges = env.azure.records(Endpoint::AcrExchange);
    assert_eq!((exchanges.len(), &*exchanges[0].host), (1, REGIONAL));

    let warnings = env.warnings(namespace, &pod_with(&image, Some("contoso"))).await;
    assert!(
        warnings[0].contains("no image of the Pod comes from contoso.azurecr.io"),
        "{warnings:?}"
    );
}
