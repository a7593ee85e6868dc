//! The generator that a namespace has by default, and the warning about one that no image needs.

use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use testkit::{
    azure::{REGISTRY, TENANT},
    env::TestEnv,
    eventually,
    objects::{ANNOTATION, from, pod, pull_secret_name, pull_secret_names},
};

/// A Pod that asks for nothing, with these images.
fn silent(images: &[&str]) -> Pod {
    let containers: Vec<_> = images
        .iter()
        .enumerate()
        .map(|(n, image)| json!({"name": format!("c{n}"), "image": image}))
        .collect();
    from(json!({
        "metadata": {"generateName": "silent-"},
        "spec": {"serviceAccountName": "app", "containers": containers},
    }))
}

fn of_the_registry() -> Pod {
    silent(&["busybox", "contoso.azurecr.io/team-a/app:1"])
}

#[testkit::test]
async fn a_labelled_namespace_gives_its_pods_a_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    assert!(pull_secret_names(&namespace.create_pod(&of_the_registry()).await).is_empty());
    namespace.set_default_generator(json!("contoso")).await;
    let made = eventually("the label is in force", async || {
        let made = namespace.create_pod(&of_the_registry()).await;
        (!pull_secret_names(&made).is_empty()).then_some(made)
    })
    .await;
    let name = pull_secret_name(&made);
    env.assert_pulls(namespace, &name, env.team_a.repository).await;
    // The same one that an annotated Pod gets.
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await),
        name
    );
    assert_eq!(env.azure.calls(Endpoint::EntraToken), 1);

    namespace.set_default_generator(json!(null)).await;
    eventually("the label is forgotten", async || {
        let made = namespace.create_pod(&of_the_registry()).await;
        pull_secret_names(&made).is_empty().then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_pod_that_opts_out_or_pulls_from_elsewhere_is_left_alone() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace.set_default_generator(json!("contoso")).await;
    eventually("the label is in force", async || {
        let made = namespace.create_pod(&of_the_registry()).await;
        (!pull_secret_names(&made).is_empty()).then_some(())
    })
    .await;
    let mut out = of_the_registry();
    out.metadata.annotations = Some([(ANNOTATION.to_owned(), "none".to_owned())].into());
    let elsewhere = silent(&["busybox", "fabrikam.azurecr.io/app:1"]);
    // Nor is it refused for what only the registry would need.
    let mut nobody = elsewhere.clone();
    nobody.spec.as_mut().unwrap().service_account_name = Some("default".to_owned());
    for untouched in [&out, &elsewhere, &nobody] {
        let made = namespace.create_pod(untouched).await;
        assert!(pull_secret_names(&made).is_empty(), "{made:?}");
        assert!(made.metadata.labels.is_none());
    }
}

#[testkit::test]
async fn an_annotation_counts_before_the_namespaces_label() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("other", json!({"scope": "repository:team-a/app:pull"}))
        .await;
    namespace.set_default_generator(json!("contoso")).await;
    let by_label = eventually("the label is in force", async || {
        pull_secret_names(&namespace.create_pod(&of_the_registry()).await).pop()
    })
    .await;
    let by_annotation = pull_secret_name(&namespace.create_pod(&pod("app", "other")).await);
    assert_ne!(by_label, by_annotation);
}

#[testkit::test]
async fn a_cluster_generator_can_be_a_namespaces_default() {
    let env = TestEnv::start().await;
    let spec = json!({"registry": REGISTRY, "tenantId": TENANT, "auth": {"workloadIdentity": {}}});
    let reference = env
        .cluster_generator(json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": spec}}))
        .await;
    for team in [&env.team_a, &env.team_b] {
        let label: Value = json!(reference.replace('/', "."));
        team.namespace.set_default_generator(label).await;
        let name = eventually("the label is in force", async || {
            pull_secret_names(&team.namespace.create_pod(&of_the_registry()).await).pop()
        })
        .await;
        env.assert_pulls(&team.namespace, &name, team.repository).await;
    }
}

#[testkit::test]
async fn a_default_that_cannot_be_used_is_told_as_the_namespaces() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    for (label, reason, words) in [
        ("fabrikam", "GeneratorNotFound", "default generator of namespace"),
        (
            "Secret.x",
            "InvalidAnnotation",
            "label acr-pull.dev/access-token of the Namespace",
        ),
    ] {
        namespace.set_default_generator(json!(label)).await;
        eventually("the refusal", async || {
            // Whoever needs no registry of Azure's does not notice.
            let elsewhere = silent(&["busybox", "docker.io/library/busybox:1"]);
            assert!(pull_secret_names(&namespace.create_pod(&elsewhere).await).is_empty());
            match namespace.try_create_pod(&of_the_registry()).await {
                Err(kube::Error::Api(status)) => {
                    let fits = status.message.contains(reason) && status.message.contains(words);
                    fits.then_some(())
                }
                _ => None,
            }
        })
        .await;
    }
    namespace.set_default_generator(json!("none")).await;
    eventually("none is no default", async || {
        let made = namespace.try_create_pod(&of_the_registry()).await;
        made.is_ok_and(|made| pull_secret_names(&made).is_empty())
            .then_some(())
    })
    .await;
}

#[testkit::test]
async fn a_pull_secret_that_no_image_needs_is_warned_of() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let mut asking = pod("app", "contoso");
    assert!(env.warnings(namespace, &asking).await.is_empty());
    let spec = asking.spec.as_mut().unwrap();
    spec.containers[0].image = Some("docker.io/library/busybox:1".to_owned());
    let warnings = env.warnings(namespace, &asking).await;
    assert_eq!(
        warnings,
        [
            "acr-pull-webhook: no container image comes from contoso.azurecr.io, the registry of ACRAccessToken contoso"
        ]
    );
    let spec = asking.spec.as_mut().unwrap();
    spec.init_containers = from(json!([{"name": "init", "image": "contoso.azurecr.io/team-a/app:1"}]));
    assert!(env.warnings(namespace, &asking).await.is_empty());
}
