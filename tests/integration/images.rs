//! Every field of a Pod that holds an image, as the API server's own schema lists them.

use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use serde_json::{Value, json};
use testkit::{env::TestEnv, objects::ANNOTATION, review::post, review::review};

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
