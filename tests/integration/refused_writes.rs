//! The API server refuses the webhook's writes.

use crate::refusals::assert_refused;
use acr_pull_webhook::generator::ACRAccessToken;
use axum::{Router, body::Bytes, routing::post as post_route};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration,
    core::v1::{ResourceQuota, Secret, ServiceAccount},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::REGISTRY,
    control_plane::apply,
    env::TestEnv,
    eventually,
    https_server::HttpsServer,
    namespace::TestNamespace,
    objects::{dry_run, from, pod, pull_secret_name},
    review::{post, review},
};

#[testkit::test]
async fn a_foreign_secret_with_the_name_of_a_pull_secret_is_kept() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.dry_run_pod(&pod("app", "contoso")).await.unwrap());
    let config = json!({"auths": {REGISTRY: {"username": "me", "password": "mine"}}}).to_string();
    for foreign in [
        json!({"type": "Opaque", "stringData": {"mine": "yes"}}),
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": config}}),
    ] {
        let mut foreign = foreign;
        foreign["metadata"] = json!({"name": name});
        let before = namespace
            .secrets()
            .create(&PostParams::default(), &from::<Secret>(foreign))
            .await
            .unwrap();
        eventually("the Pod is refused because of the foreign Secret", async || {
            let status = namespace.refused_pod(&pod("app", "contoso")).await;
            assert_eq!(status.code, 403);
            assert!(!status.message.contains("password"), "{}", status.message);
            (status.message.contains("SecretConflict") && status.message.contains(&name)).then_some(())
        })
        .await;
        let after = namespace.secrets().get(&name).await.unwrap();
        assert_eq!(
            (before.data, before.metadata.uid),
            (after.data, after.metadata.uid)
        );
        eventually("no pull secret is left after the refusal", async || {
            let owner = namespace.pull_secrets().get_opt(&name).await.unwrap();
            owner.is_none().then_some(())
        })
        .await;
        namespace.delete_secret(&name).await;
    }
    namespace.retry_create_pod(&pod("app", "contoso")).await;
}

#[testkit::test]
async fn a_restored_pull_secret_without_its_owner_is_taken_over() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let restored = restore_without_owner(namespace).await;
    namespace.create_pod(&pod("app", "contoso")).await;
    let name = restored.name_any();
    let secret = namespace.secrets().get(&name).await.unwrap();
    assert_eq!(secret.metadata.uid, restored.metadata.uid);
    assert_ne!(secret.data, restored.data);
    let owners = secret.metadata.owner_references.unwrap();
    assert_eq!(owners[0].name, name);
}

/// OpenShift enables this plugin: only who may delete an object may change its owner.
#[testkit::test]
async fn where_owners_are_protected_a_restored_pull_secret_must_be_deleted() {
    let env =
        TestEnv::on_api_server_with(&["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"])
            .await;
    let namespace = &env.team_a.namespace;
    let name = restore_without_owner(namespace).await.name_any();
    let command = format!("kubectl delete secret --namespace {namespace} {name}");
    assert_refused(&env, &pod("app", "contoso"), 403, "SecretConflict", &[&command]).await;
    namespace.delete_secret(&name).await;
    // The refusal is remembered for a moment.
    namespace.retry_create_pod(&pod("app", "contoso")).await;
}

/// Restores a pull Secret as a backup without owner references does. It has the name that the next Pod needs.
async fn restore_without_owner(namespace: &TestNamespace) -> Secret {
    let name = pull_secret_name(&namespace.dry_run_pod(&pod("app", "contoso")).await.unwrap());
    let config = json!({"auths": {REGISTRY: {"username": "me", "password": "expired"}}}).to_string();
    let restored = json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "acr-pull-webhook"}},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config},
    });
    let (secrets, restored) = (namespace.secrets(), from::<Secret>(restored));
    secrets.create(&PostParams::default(), &restored).await.unwrap()
}

#[testkit::test]
async fn a_quota_on_secrets_refuses_the_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let quotas = namespace.api::<ResourceQuota>();
    let quota = from(json!({"metadata": {"name": "no-secrets"}, "spec": {"hard": {"secrets": "0"}}}));
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    eventually("the quota applies", async || {
        quotas.get("no-secrets").await.unwrap().status?.hard
    })
    .await;
    assert_refused(
        &env,
        &pod("app", "contoso"),
        403,
        "QuotaExceeded",
        &["exceeded quota", "no-secrets"],
    )
    .await;
    quotas
        .delete("no-secrets", &DeleteParams::default())
        .await
        .unwrap();
    namespace.retry_create_pod(&pod("app", "contoso")).await;
}

/// A registration of the Secrets in this namespace, as that of a policy engine.
fn registration_of_secrets(
    namespace: &TestNamespace,
    client_config: Value,
) -> ValidatingWebhookConfiguration {
    from(json!({
        "metadata": {"name": format!("{namespace}-policies")},
        "webhooks": [{
            "name": "validate.kyverno.svc",
            "admissionReviewVersions": ["v1"],
            "clientConfig": client_config,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE", "UPDATE"],
            }],
            "sideEffects": "None",
        }],
    }))
}

/// Denies a request, with a message and without a code. The API server then answers 400.
async fn deny(body: Bytes) -> ([(&'static str, &'static str); 1], String) {
    let review: Value = serde_json::from_slice(&body).unwrap();
    let response = json!({
        "uid": review["request"]["uid"], "allowed": false, "status": {"message": "label team is required"},
    });
    let answer = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
    });
    ([("content-type", "application/json")], answer.to_string())
}

#[testkit::test]
async fn the_denial_of_a_webhook_without_a_code_refuses_the_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let server = HttpsServer::start(Router::new().route("/", post_route(deny))).await;
    let registrations = Api::<ValidatingWebhookConfiguration>::all(env.client.clone());
    let registration = registration_of_secrets(namespace, server.client_config("/"));
    apply(&registrations, &registration).await;
    let probe: Secret = from(json!({"metadata": {"name": "probe"}}));
    eventually("the API server calls the webhook", async || {
        let created = namespace.secrets().create(&dry_run(), &probe).await;
        match created {
            Err(kube::Error::Api(status)) => (status.code == 400).then_some(()),
            _ => None,
        }
    })
    .await;
    let texts = ["label team is required", "validate.kyverno.svc"];
    assert_refused(&env, &pod("app", "contoso"), 403, "PolicyDenied", &texts).await;
    eventually("no pull secret is left after the refusal", async || {
        namespace.list_pull_secrets().await.is_empty().then_some(())
    })
    .await;
    let retries = env.webhook.logged("pull secret not issued yet");
    assert_eq!(retries, 0, "the webhook does not retry in the background");

    let params = DeleteParams::default();
    registrations
        .delete(&registration.name_any(), &params)
        .await
        .unwrap();
    namespace.retry_create_pod(&pod("app", "contoso")).await;
}

#[testkit::test]
async fn a_terminating_namespace_refuses_the_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    // Finalizers keep the generator, the service account and therefore the namespace until the end of the test.
    set_finalizers(namespace, json!(["test.dev/held"])).await;
    namespace.begin_deletion().await;
    // The API server refuses such Pods without a call of the webhook, except while its cache lags. The test sends the
    // review of that case.
    let answer = eventually("the webhook refuses the Pod", async || {
        let answer = post(&env, &review(namespace, &pod("app", "contoso"))).await;
        let message = answer["response"]["status"]["message"].as_str()?;
        message.contains("NamespaceTerminating").then_some(answer)
    })
    .await;
    assert_eq!(
        (
            &answer["response"]["allowed"],
            &answer["response"]["status"]["code"]
        ),
        (&json!(false), &json!(403))
    );
    set_finalizers(namespace, json!(null)).await;
}

/// Sets the finalizers of the generator `contoso` and of the service account `app`.
async fn set_finalizers(namespace: &TestNamespace, finalizers: Value) {
    let patch = Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    let params = PatchParams::default();
    let generators = namespace.api::<ACRAccessToken>();
    generators.patch("contoso", &params, &patch).await.unwrap();
    let accounts = namespace.api::<ServiceAccount>();
    accounts.patch("app", &params, &patch).await.unwrap();
}
