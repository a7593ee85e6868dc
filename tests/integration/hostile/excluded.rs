//! Namespaces that the webhook does not serve.

use super::unaffected_by;
use kube::{ResourceExt, api::PostParams};
use serde_json::json;
use testkit::{
    azure::REGISTRY,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{ANNOTATION, CLIENT_ID, from, pod, pull_secret_names, unnamed_pod},
    review::{post, review},
};

/// AKS requires of every webhook that it ignores namespaces with this label. A user who may label a
/// Namespace gets unpatched Pods in that Namespace and nothing else, as docs/security.md states.
#[testkit::test]
async fn only_a_namespace_labelled_as_control_plane_is_ignored() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let invalid = unnamed_pod("no-such");
    let attempt = async {
        namespace.set_label("control-plane", json!("true")).await;
        eventually("Pods are not sent to the webhook", async || {
            let created = namespace.try_create_pod(&invalid).await;
            created.ok().filter(|pod| pull_secret_names(pod).is_empty())
        })
        .await;
        namespace.set_label("control-plane", json!(null)).await;
        eventually("Pods are sent to the webhook again", async || {
            let refused = namespace.try_create_pod(&invalid).await.err()?;
            refused.to_string().contains("GeneratorNotFound").then_some(())
        })
        .await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    namespace.create_pod(&pod("app", "contoso")).await;
}

/// Asserts that the webhook itself refuses Pods that need a pull secret here, and admits all others.
async fn check_admission(env: &TestEnv, namespace: &TestNamespace, reference: &str) {
    namespace.set_default_generator(json!("contoso")).await;
    let answer = post(env, &review(namespace, &pod("forged", reference))).await;
    assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("NamespaceExcluded"), "{message}");
    // The default generator of the Namespace does not matter.
    let opted_out = pod("forged", "none");
    let mut unannotated = opted_out.clone();
    unannotated.annotations_mut().remove(ANNOTATION);
    for pod in [opted_out, unannotated] {
        let answer = post(env, &review(namespace, &pod)).await;
        assert_eq!(answer["response"]["allowed"], true, "{answer}");
        assert!(answer["response"]["patch"].is_null(), "{answer}");
    }
    assert!(namespace.list_pull_secrets().await.is_empty());
}

/// Asserts that the leader issues no token for a used pull secret from before the exclusion.
async fn check_upkeep(namespace: &TestNamespace) {
    const NAME: &str = "acr-pull-before";
    let generator = json!({"kind": "ACRAccessToken", "name": "contoso"});
    let spec = json!({"generator": generator, "serviceAccountName": "app"});
    let owner = from(json!({"metadata": {"name": NAME}, "spec": spec}));
    namespace.set_default_generator(json!(null)).await;
    let pull_secrets = namespace.pull_secrets();
    pull_secrets.create(&PostParams::default(), &owner).await.unwrap();
    let user = json!({
        "metadata": {
            "name": "uses", "labels": {"acr-pull.dev/injected": "true"},
            "annotations": {"acr-pull.dev/pull-secrets": NAME},
        },
        "spec": {
            "serviceAccountName": "app", "imagePullSecrets": [{"name": NAME}],
            "containers": [{"name": "app", "image": format!("{REGISTRY}/app")}],
        },
    });
    namespace.create_pod(&from(user)).await;
    eventually("the condition states why there is no token", async || {
        let owner = namespace.pull_secret(NAME).await;
        let ready = owner.status?.conditions.into_iter().next()?;
        (ready.reason == "NamespaceExcluded").then_some(())
    })
    .await;
    assert!(namespace.secrets().get_opt(NAME).await.unwrap().is_none());
}

/// The registration was bypassed: the program itself issues nothing for an excluded namespace.
#[testkit::test]
async fn no_pull_secret_is_issued_in_an_excluded_namespace() {
    let env = TestEnv::leading(&["--excluded-namespaces=infra,TEAM_A"], |_| ()).await;
    let (system, namespace) = (env.namespace("kube-system"), &env.team_a.namespace);
    let reference = env.cluster_generator(json!({})).await;
    let annotation = (CLIENT_ID, env.team_a.client_id);
    system.apply_service_account("app", &[annotation]).await;
    let attempt = async {
        for namespace in [&system, namespace] {
            check_admission(&env, namespace, &reference).await;
        }
        check_upkeep(namespace).await;
    };
    unaffected_by(&env, &[&env.webhook], attempt).await;
    let requests = env.azure.requests();
    let mut clients = requests.iter().filter_map(|request| request.client_id.as_deref());
    assert!(clients.all(|client_id| client_id != env.team_a.client_id));
}
