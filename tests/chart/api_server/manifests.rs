//! Every manifest of documents and examples, sent to an API server as a dry run.

use super::cluster::Cluster;
use chart::{helm, repository, shell};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf};

/// Groups that belong to other projects, whose definitions are not installed here.
const FOREIGN: [&str; 6] = [
    "argoproj.io/",
    "external-secrets.io/",
    "helm.toolkit.fluxcd.io/",
    "kustomize.config.k8s.io/",
    "source.toolkit.fluxcd.io/",
    "cert-manager.io/",
];

/// An object and the file that it comes from.
struct Documented {
    place: String,
    object: Value,
}

/// The objects in the YAML of documents and examples. Other YAML, such as values and parts of objects, is only parsed.
fn objects() -> Vec<Documented> {
    let mut objects = Vec::new();
    let mut add = |place: String, yaml: &str| {
        // An ellipsis stands for an ID.
        let yaml = yaml.replace('…', "x");
        for object in testkit::programs::manifests(&yaml) {
            if object["apiVersion"].is_string() && object["kind"].is_string() {
                objects.push(Documented {
                    place: place.clone(),
                    object,
                });
            }
        }
    };
    for document in shell::documents() {
        for block in document.blocks.iter().filter(|block| block.language == "yaml") {
            add(format!("{}:{}", document.path.display(), block.line), &block.text);
        }
    }
    for file in example_files("yaml") {
        add(file.display().to_string(), &fs::read_to_string(&file).unwrap());
    }
    objects
}

/// The files below `examples` with this extension.
fn example_files(extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in fs::read_dir(repository("examples")).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            files.push(file.unwrap().path());
        }
    }
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files
}

#[testkit::test]
async fn an_api_server_accepts_every_manifest_of_documents_and_examples() {
    let cluster = Cluster::shared().await;
    for folder in ["deploy/kustomize/crds", "deploy/kustomize/generators"] {
        let apply = cluster.kubectl("apply --server-side --force-conflicts --kustomize");
        apply.arg(repository(folder)).succeed().await;
    }
    let wait = "wait --for=condition=Established --timeout=60s crd --all";
    cluster.kubectl(wait).succeed().await;
    let objects = objects();
    let namespaces: BTreeSet<_> = objects
        .iter()
        .filter_map(|d| d.object["metadata"]["namespace"].as_str())
        .collect();
    for namespace in namespaces {
        cluster.ensure_namespace(namespace).await;
    }
    // The API server admits a Pod only if its service account exists.
    for account in objects.iter().map(|documented| &documented.object) {
        if account["kind"] == "ServiceAccount" {
            cluster
                .send("apply --server-side --force-conflicts", account)
                .await;
        }
    }
    let mut accepted = BTreeSet::new();
    for Documented { place, mut object } in objects {
        let version = object["apiVersion"].as_str().unwrap().to_owned();
        if FOREIGN.iter().any(|group| version.starts_with(group)) {
            continue;
        }
        let kind = object["kind"].as_str().unwrap().to_owned();
        // A manifest in a list of steps may omit the spec that is not its topic.
        if kind == "ACRAccessToken" && object.get("spec").is_none() {
            object["spec"] = json!({"registry": "contoso.azurecr.io", "auth": {"workloadIdentity": {}}});
        }
        let apply = cluster
            .kubectl("apply --server-side --force-conflicts --dry-run=server --validate=strict --filename -");
        let outcome = apply.input(object.to_string()).outcome().await;
        assert!(outcome.is_ok(), "{place}: {kind}: {outcome:?}");
        accepted.insert(kind);
    }
    for kind in [
        "ACRAccessToken",
        "ClusterGenerator",
        "Deployment",
        "Namespace",
        "ServiceAccount",
    ] {
        assert!(accepted.contains(kind), "{kind}: {accepted:?}");
    }
}

#[testkit::test]
async fn the_chart_accepts_the_values_of_every_example() {
    let files = example_files("yaml");
    let files: Vec<_> = files
        .iter()
        .filter(|file| file.ends_with("values.yaml"))
        .collect();
    assert!(files.len() >= 2, "{files:?}");
    for file in files {
        helm::render(helm::values_file(file)).await;
    }
}
