//! The chart and `deploy/kustomize` describe the same objects.

use chart::{
    comparison::differences,
    helm::{chart, render, set, values_file},
    kubectl::kustomize,
    manifests::Manifests,
    repository,
    values::provided,
};
use tempfile::TempDir;

/// The base with this component, the CRDs and the kinds of generators.
async fn base_with(component: Option<&str>) -> Manifests {
    let overlay = TempDir::with_prefix("acr-pull-webhook-test-").unwrap();
    // kustomize refuses absolute paths.
    let folder = overlay.path().canonicalize().unwrap();
    let to_root = "../".repeat(folder.components().count() - 1);
    let relative = |path: &str| format!("{to_root}.{}", repository(path).display());
    let components = component.map(|name| relative(&format!("deploy/kustomize/components/{name}")));
    let kustomization = serde_json::json!({
        "resources": [relative("deploy/kustomize/base")],
        "components": components.into_iter().collect::<Vec<_>>(),
    });
    std::fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    let mut manifests = kustomize(&folder).await;
    for part in ["deploy/kustomize/crds", "deploy/kustomize/generators"] {
        manifests.0.extend(kustomize(repository(part)).await.0);
    }
    manifests
}

/// What differs between the base with a component and the chart with these flags.
async fn differences_of(component: Option<&str>, mut flags: Vec<String>) -> Vec<String> {
    flags.push("--no-hooks".to_owned());
    differences(&base_with(component).await, &render(flags).await)
}

#[testkit::test]
async fn the_default_equals_the_base_of_kustomize() {
    assert_eq!(differences_of(None, Vec::new()).await, [""; 0]);
}

#[testkit::test]
async fn each_component_of_kustomize_equals_a_value() {
    let components = [
        ("cert-manager", set(["certificates.mode=cert-manager"])),
        ("network-policy", set(["networkPolicy.enabled=true"])),
        (
            "monitoring",
            set(["serviceMonitor.enabled=true", "prometheusRule.enabled=true"]),
        ),
        (
            "last-in-order",
            set(["webhook.configurationName=zz-acr-pull-webhook"]),
        ),
        (
            "host-network",
            set(["hostNetwork=true,listen.port=10270,admin.port=10271"]),
        ),
        ("openshift", values_file(chart().join("values-openshift.yaml"))),
    ];
    let mut tested: Vec<_> = components
        .iter()
        .map(|(component, _)| (*component).to_owned())
        .collect();
    for (component, flags) in components {
        let differences = differences_of(Some(component), flags).await;
        assert_eq!(differences, [""; 0], "{component}");
    }
    tested.push("provided-certificates".to_owned());
    tested.sort();
    assert_eq!(tested, components_of_kustomize());
}

/// An overlay adds the authority.
#[testkit::test]
async fn provided_certificates_differ_from_kustomize_only_in_the_authority() {
    let differences = differences_of(Some("provided-certificates"), provided("acr-pull-webhook-tls")).await;
    let registration = "admissionregistration.k8s.io/v1 MutatingWebhookConfiguration acr-pull-webhook";
    assert_eq!(differences.len(), 2, "{differences:?}");
    for (index, difference) in differences.iter().enumerate() {
        let path =
            format!("{registration}/webhooks/{index}/clientConfig/caBundle: kustomize nothing, chart ");
        assert!(difference.starts_with(&path), "{difference}");
    }
}

fn components_of_kustomize() -> Vec<String> {
    let folders = std::fs::read_dir(repository("deploy/kustomize/components")).unwrap();
    let mut names: Vec<_> = folders
        .map(|folder| folder.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
