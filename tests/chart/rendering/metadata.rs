//! Labels and annotations.

use chart::{
    NAME,
    comparison::differences,
    helm::{render, set},
    manifests::{has_field, title},
};
use serde_json::{Value, json};

#[testkit::test]
async fn common_labels_and_annotations_are_on_every_object() {
    let rendered = render(set([
        "commonLabels.team=platform",
        "commonAnnotations.owner=platform",
        "certificates.mode=cert-manager",
        "networkPolicy.enabled=true",
        "serviceMonitor.enabled=true",
        "crds.generators=true",
    ]))
    .await;
    assert!(rendered.0.len() > 20, "{} objects are rendered", rendered.0.len());
    for object in &rendered.0 {
        let title = title(object);
        assert_eq!(object["metadata"]["labels"]["team"], "platform", "{title}");
        assert_eq!(object["metadata"]["annotations"]["owner"], "platform", "{title}");
    }
    let pods = &rendered.only("Deployment")["spec"]["template"]["metadata"];
    assert_eq!(pods["labels"]["team"], "platform");
    let certificates = rendered.of_kind("Certificate");
    assert_eq!(certificates.len(), 2);
    for certificate in certificates {
        let common = json!({"labels": {"team": "platform"}, "annotations": {"owner": "platform"}});
        assert_eq!(certificate["spec"]["secretTemplate"], common);
    }
}

#[testkit::test]
async fn without_common_labels_and_annotations_their_fields_are_absent() {
    for mode in ["self-managed", "cert-manager"] {
        let rendered = render(set([format!("certificates.mode={mode}").as_str()])).await;
        for object in &rendered.0 {
            assert!(!has_field(object, "secretTemplate"), "{}", title(object));
            let annotations = object["metadata"].get("annotations");
            let is_empty = annotations.is_some_and(|a| a.as_object().is_none_or(serde_json::Map::is_empty));
            assert!(!is_empty, "{} has {annotations:?}", title(object));
        }
    }
}

/// Selectors, RBAC and Helm's ownership depend on the labels of the chart.
#[testkit::test]
async fn common_labels_do_not_replace_labels_of_the_chart() {
    let [before, after] = [
        render::<String>([]).await,
        render(set(["commonLabels.app\\.kubernetes\\.io/name=x"])).await,
    ];
    assert_eq!(before.0, after.0);
    assert_eq!(differences(&before, &after), [""; 0]);
}

/// Otherwise the Service would send reviews to the Pod.
#[testkit::test]
async fn the_pod_of_helm_test_is_not_selected_by_the_service() {
    let rendered = render(["--show-only", "templates/tests/check.yaml"]).await;
    assert_eq!(rendered.0.len(), 4);
    for object in &rendered.0 {
        let label = &object["metadata"]["labels"]["app.kubernetes.io/name"];
        assert_eq!(*label, format!("{NAME}-test"), "{}", title(object));
    }
}

/// A failed test also leaves no right to create Pods. Its Pod stays, because its log explains the failure.
#[testkit::test]
async fn the_permissions_of_helm_test_are_deleted_with_it() {
    let rendered = render(["--show-only", "templates/tests/check.yaml"]).await;
    let policy = |object: &Value| object["metadata"]["annotations"]["helm.sh/hook-delete-policy"].clone();
    for kind in ["ServiceAccount", "Role", "RoleBinding"] {
        let policy = policy(rendered.only(kind));
        assert_eq!(
            policy, "before-hook-creation,hook-succeeded,hook-failed",
            "{kind}"
        );
    }
    assert_eq!(
        policy(rendered.only("Pod")),
        "before-hook-creation,hook-succeeded"
    );
}
