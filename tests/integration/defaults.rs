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

const MODE: &str = "acr-pull.dev/access-token-mode";

/// Asserts that a Pod is admitted without a change and with one warning that contains these texts.
async fn assert_audited(env: &TestEnv, pod: &Pod, texts: &[&str]) {
    let namespace = &env.team_a.namespace;
    eventually("the Pod is audited", async || {
        let created = namespace.dry_run_pod(pod).await.ok()?;
        pull_secret_names(&created)
            .is_empty()
            .then(|| assert!(created.metadata.labels.is_none()))
    })
    .await;
    let warnings = env.warnings(namespace, pod).await;
    let [warning] = warnings.as_slice() else {
        panic!("{warnings:?}")
    };
    for text in [MODE, namespace.name()].iter().chain(texts) {
        assert!(warning.contains(text), "{text:?} is not in {warning}");
    }
}

/// Waits until a warning about the Pod contains this text.
async fn wait_for_warning(env: &TestEnv, pod: &Pod, text: &str) {
    eventually(&format!("a warning contains {text:?}"), async || {
        let warnings = env.warnings(&env.team_a.namespace, pod).await;
        warnings
            .iter()
            .any(|warning| warning.contains(text))
            .then_some(())
    })
    .await;
}

#[testkit::test]
async fn an_audited_default_only_warns_about_the_pods() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace.set_label(MODE, json!("audit")).await;
    namespace.set_default_generator(json!("contoso")).await;
    eventually("the label applies", async || {
        let warnings = env.warnings(namespace, &with_registry_image()).await;
        (!warnings.is_empty()).then_some(())
    })
    .await;
    let served = with_registry_image();
    assert_audited(
        &env,
        &served,
        &[
            "would get pull secret acr-pull-contoso-app-",
            "contoso.azurecr.io",
        ],
    )
    .await;
    let refused = with_account(with_registry_image(), "default");
    assert_audited(
        &env,
        &refused,
        &["would be refused: ClientIdMissing", "spec.serviceAccountName"],
    )
    .await;
    for (audited, reason) in [(&served, "Ok"), (&refused, "ClientIdMissing")] {
        let metric = format!("admissions_total{{outcome=\"audited\",reason=\"{reason}\"}}");
        let before = env.webhook.metric(&metric).await;
        eventually("the API server has a Pod audited", async || {
            assert!(pull_secret_names(&namespace.create_pod(audited).await).is_empty());
            (env.webhook.metric(&metric).await > before).then_some(())
        })
        .await;
    }
    // Pods of other registries and annotated Pods are treated as without the label.
    assert!(
        env.warnings(namespace, &unannotated(&["busybox"]))
            .await
            .is_empty()
    );
    assert!(env.azure.requests().is_empty() && namespace.list_pull_secrets().await.is_empty());
    pull_secret_name(&namespace.create_pod(&pod("annotated", "contoso")).await);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);

    namespace.set_default_generator(json!("fabrikam")).await;
    wait_for_warning(&env, &served, "GeneratorNotFound").await;
    assert_audited(&env, &served, &["would be refused: GeneratorNotFound"]).await;
}

#[testkit::test]
async fn the_first_pod_after_an_audit_has_its_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let served = with_registry_image();
    namespace.set_default_generator(json!("contoso")).await;
    wait_for_label(namespace).await;
    for enforced in [json!("enforce"), json!(null)] {
        namespace.set_label(MODE, json!("audit")).await;
        wait_for_warning(&env, &served, "would get").await;
        namespace.set_label(MODE, enforced).await;
        // A Pod without its pull secret could never pull, so the first Pod after the change has it.
        assert_eq!(pull_secret_names(&namespace.create_pod(&served).await).len(), 1);
    }
    namespace.set_label(MODE, json!("Audit")).await;
    eventually("another mode is refused", async || {
        let refused = namespace.try_create_pod(&served).await.err()?.to_string();
        (refused.contains("InvalidAnnotation") && refused.contains("audit or enforce")).then_some(())
    })
    .await;
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
            "acr-pull-webhook: RegistryNotUsed: no image of the Pod comes from contoso.azurecr.io, the registry of \
             ACRAccessToken contoso; see https://acr-pull.dev/reasons.html#registrynotused"
        ]
    );
    let spec = annotated.spec.as_mut().unwrap();
    spec.init_containers = from(json!([{"name": "init", "image": "contoso.azurecr.io/team-a/app:1"}]));
    assert!(env.warnings(namespace, &annotated).await.is_empty());
}

#[testkit::test]
async fn an_image_that_no_scope_contains_causes_a_warning() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let own = env.team_a.repository;
    let scope = format!("repository:{own}:pull");
    namespace.apply_generator("scoped", json!({"scope": scope})).await;
    let warnings = async |generators: &str, image: &str| {
        let mut pod = pod("app", generators);
        pod.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        env.warnings(namespace, &pod).await
    };
    let inside = format!("contoso.azurecr.io/{own}@sha256:{}", "0".repeat(64));
    assert!(warnings("scoped", &inside).await.is_empty());
    let outside = "contoso.azurecr.io/elsewhere/app:1";
    assert_eq!(
        warnings("scoped", outside).await,
        [
            "acr-pull-webhook: ImageOutsideScope: image contoso.azurecr.io/elsewhere/app is not in spec.scope of \
             ACRAccessToken scoped, so the kubelet cannot pull it; see https://acr-pull.dev/reasons.html#imageoutsidescope"
                .to_owned(),
            format!(
                "acr-pull-webhook, run: kubectl patch acraccesstoken scoped --namespace {} --type merge --patch \
                 '{{\"spec\":{{\"scope\":\"repository:REPOSITORY:pull\"}}}}'",
                namespace.name()
            ),
        ]
    );
    // The token of another generator for the registry covers the image.
    assert!(warnings("scoped,contoso", outside).await.is_empty());
    assert!(warnings("contoso,scoped", outside).await.is_empty());
}
