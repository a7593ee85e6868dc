//! The default generator of a namespace, and the warning about a pull secret that no image needs.

use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use testkit::{
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{ANNOTATION, from, pod, pull_secret_name, pull_secret_names, with_account},
};

/// A Pod without an annotation and with these images.
fn unannotated(images: &[&str]) -> Pod {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(n, image)| json!({"name": format!("c{n}"), "image": image}))
        .collect();
    from(json!({
        "metadata": {"generateName": "unannotated-"},
        "spec": {"serviceAccountName": "app", "containers": containers},
    }))
}

/// A Pod with an image of the registry.
fn with_registry_image() -> Pod {
    unannotated(&["busybox", "contoso.azurecr.io/team-a/app:1"])
}

/// Waits until the label of a namespace applies to its Pods; returns the name of their pull secret.
async fn wait_for_label(namespace: &TestNamespace) -> String {
    eventually("the label applies", async || {
        pull_secret_names(&namespace.create_pod(&with_registry_image()).await).pop()
    })
    .await
}

#[testkit::test]
async fn a_labelled_namespace_adds_a_pull_secret_to_its_pods() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    assert!(pull_secret_names(&namespace.create_pod(&with_registry_image()).await).is_empty());
    namespace.set_default_generator(json!("contoso")).await;
    let name = wait_for_label(namespace).await;
    env.assert_pulls(namespace, &name, env.team_a.repository).await;
    // An annotated Pod gets the same pull secret.
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await),
        name
    );
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);

    namespace.set_default_generator(json!(null)).await;
    eventually("the label no longer applies", async || {
        let created = namespace.create_pod(&with_registry_image()).await;
        pull_secret_names(&created).is_empty().then_some(())
    })
    .await;
}

#[testkit::test]
async fn pods_that_opt_out_or_use_other_registries_are_not_patched() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace.set_default_generator(json!("contoso")).await;
    wait_for_label(namespace).await;
    let mut out = with_registry_image();
    out.metadata.annotations = Some([(ANNOTATION.to_owned(), "none".to_owned())].into());
    let elsewhere = unannotated(&["busybox", "fabrikam.azurecr.io/app:1"]);
    // A Pod without an image of the registry needs no client id.
    let no_client_id = with_account(elsewhere.clone(), "default");
    for untouched in [&out, &elsewhere, &no_client_id] {
        let created = namespace.create_pod(untouched).await;
        assert!(pull_secret_names(&created).is_empty(), "{created:?}");
        assert!(created.metadata.labels.is_none());
    }
}

#[testkit::test]
async fn an_annotation_precedes_the_label_of_the_namespace() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("other", json!({"scope": "repository:team-a/app:pull"}))
        .await;
    namespace.set_default_generator(json!("contoso")).await;
    let by_label = wait_for_label(namespace).await;
    let by_annotation = pull_secret_name(&namespace.create_pod(&pod("app", "other")).await);
    assert_ne!(by_label, by_annotation);
}

#[testkit::test]
async fn a_cluster_generator_can_be_the_default_generator() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(json!({})).await;
    for team in [&env.team_a, &env.team_b] {
        let label: Value = json!(reference.replace('/', "."));
        team.namespace.set_default_generator(label).await;
        let name = wait_for_label(&team.namespace).await;
        env.assert_pulls(&team.namespace, &name, team.repository).await;
    }
}

#[testkit::test]
async fn the_refusal_of_an_invalid_default_names_the_namespace() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    for (label, reason, text) in [
        ("fabrikam", "GeneratorNotFound", "default generator of namespace"),
        (
            "Secret.x",
            "InvalidAnnotation",
            "label acr-pull.dev/access-token of the Namespace",
        ),
    ] {
        namespace.set_default_generator(json!(label)).await;
        eventually("a Pod with an image of the registry is refused", async || {
            // Pods without an image of the registry are not affected.
            let elsewhere = unannotated(&["busybox", "docker.io/library/busybox:1"]);
            assert!(pull_secret_names(&namespace.create_pod(&elsewhere).await).is_empty());
            match namespace.try_create_pod(&with_registry_image()).await {
                Err(kube::Error::Api(status)) => {
                    let fits = status.message.contains(reason) && status.message.contains(text);
                    fits.then_some(())
                }
                _ => None,
            }
        })
        .await;
    }
    namespace.set_default_generator(json!("none")).await;
    eventually("the value none means no default generator", async || {
        let created = namespace.try_create_pod(&with_registry_image()).await;
        created
            .is_ok_and(|created| pull_secret_names(&created).is_empty())
            .then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_pull_secret_that_no_image_needs_causes_a_warning() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let mut annotated = pod("app", "contoso");
    assert!(env.warnings(namespace, &annotated).await.is_empty());
    let spec = annotated.spec.as_mut().unwrap();
    spec.containers[0].image = Some("docker.io/library/busybox:1".to_owned());
    let warnings = env.warnings(namespace, &annotated).await;
    assert_eq!(
        warnings,
        [
            "acr-pull-webhook: no image of the Pod comes from contoso.azurecr.io, the registry of ACRAccessToken contoso"
        ]
    );
    let spec = annotated.spec.as_mut().unwrap();
    spec.init_containers = from(json!([{"name": "init", "image": "contoso.azurecr.io/team-a/app:1"}]));
    assert!(env.warnings(namespace, &annotated).await.is_empty());
}
