//! The patch of a Pod, and the pull secret that it references.

use acr_pull_webhook::{
    pull_secret::{ACRPullSecretStatus, GeneratorReference, StoredKind},
    reference::Kind,
};
use azure_emulator::Endpoint;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use testkit::{
    azure::{REGISTRY, TENANT},
    env::TestEnv,
    eventually,
    objects::{
        ANNOTATION, CLIENT_ID, from, pod, pull_secret_name, pull_secret_names, unnamed_pod, with_account,
    },
};

/// From the last renewal of a token to its expiration.
fn lifetime(status: &ACRPullSecretStatus) -> SignedDuration {
    let expires = status.expiration_time.as_ref().unwrap().0;
    expires.duration_since(status.last_renewal_time.as_ref().unwrap().0)
}

#[testkit::test]
async fn an_annotated_pod_pulls_with_its_own_identity() {
    let env = TestEnv::start().await;
    let team = &env.team_a;
    let created = team.namespace.create_pod(&pod("app", "contoso")).await;
    let name = pull_secret_name(&created);

    env.assert_pulls(&team.namespace, &name, team.repository).await;
    assert_eq!(
        team.namespace.credentials(&name).await.0,
        "00000000-0000-0000-0000-000000000000"
    );
    assert_eq!(created.labels()["acr-pull.dev/injected"], "true");
    assert_eq!(created.annotations()["acr-pull.dev/pull-secrets"], name);

    let request = env.azure.records(Endpoint::EntraToken).remove(0);
    assert_eq!(
        request.subject.unwrap(),
        format!("system:serviceaccount:{}:app", team.namespace)
    );
    assert_eq!(request.audience.as_deref(), Some("api://AzureADTokenExchange"));
    assert_eq!(
        request.scope.as_deref(),
        Some("https://containerregistry.azure.net/.default")
    );
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn the_acr_pull_secret_owns_the_secret_and_reports_its_state() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);

    let owner = namespace.pull_secret(&name).await;
    let secret = namespace.secrets().get(&name).await.unwrap();
    let reference = &secret.owner_references()[0];
    assert_eq!(
        (reference.kind.as_str(), &reference.uid),
        ("ACRPullSecret", owner.metadata.uid.as_ref().unwrap())
    );

    assert_eq!(
        owner.spec.generator,
        GeneratorReference {
            kind: StoredKind::Known(Kind::AccessToken),
            name: "contoso".to_owned()
        }
    );
    assert_eq!(owner.spec.service_account_name.as_deref(), Some("app"));
    let status = owner.status.unwrap();
    let ready = &status.conditions[0];
    assert_eq!(
        (ready.type_.as_str(), ready.status.as_str(), ready.reason.as_str()),
        ("Ready", "True", "Issued")
    );
    assert_eq!(status.registry.as_deref(), Some(REGISTRY));
    assert_eq!(status.client_id.as_deref(), Some(env.team_a.client_id));
    assert_eq!(status.tenant_id.as_deref(), Some(TENANT));
    assert_eq!(status.secret_uid, secret.metadata.uid);
    let life = lifetime(&status);
    assert!(
        (10_700..=10_800).contains(&life.as_secs()),
        "an ACR refresh token is valid for three hours: {life}"
    );
}

#[testkit::test]
async fn a_scope_in_the_generator_narrows_the_token() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("scoped", json!({"scope": "repository:team-a/app:pull"}))
        .await;
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "scoped")).await);
    assert_eq!(env.azure.calls(Endpoint::AcrToken), 1);
    env.assert_pulls(namespace, &name, "team-a/app").await;
    let status = namespace.status(&name).await;
    assert_eq!(status.scope.as_deref(), Some("repository:team-a/app:pull"));
    let life = lifetime(&status);
    assert!(
        life.as_secs() <= 4500,
        "an ACR access token is valid for 75 minutes: {life}"
    );
}

#[testkit::test]
async fn a_scope_may_name_nested_repositories() {
    let widen = |world: &mut Value| world["registries"][0]["rights"][0]["repositories"] = json!(["team-a/*"]);
    let env = TestEnv::with(&[], widen).await;
    let namespace = &env.team_a.namespace;
    let repositories = ["team-a/web/api/v2", "team-a/app"];
    let scope = repositories
        .map(|name| format!("repository:{name}:pull"))
        .join(" ");
    namespace.apply_generator("nested", json!({"scope": scope})).await;
    let pod = pod("app", "nested");
    assert!(env.warnings(namespace, &pod).await.is_empty());
    let name = pull_secret_name(&namespace.create_pod(&pod).await);
    for repository in repositories {
        env.assert_pulls(namespace, &name, repository).await;
    }
    assert_eq!(env.pull_status(namespace, &name, "team-a/web").await, 401);
}

#[testkit::test]
async fn a_dry_run_returns_the_same_patch_and_creates_nothing() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let dry_run = namespace.dry_run_pod(&pod("app", "contoso")).await.unwrap();
    let name = pull_secret_name(&dry_run);
    assert!(namespace.pull_secrets().get_opt(&name).await.unwrap().is_none());
    assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());
    assert!(env.azure.requests().is_empty());
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await),
        name
    );
}

#[testkit::test]
async fn existing_pull_secrets_stay_first_and_a_reinvocation_adds_none() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let mut with_own = pod("app", "contoso");
    with_own.spec.as_mut().unwrap().image_pull_secrets = from(json!([{"name": "mine"}]));
    let created = namespace.create_pod(&with_own).await;
    let names = pull_secret_names(&created);
    assert_eq!((names.len(), names[0].as_str()), (2, "mine"));

    // A reinvocation sends the patched Pod again.
    let mut again: Pod = from(json!({"metadata": {"name": "again"}}));
    again.metadata.annotations = created.metadata.annotations.clone();
    again.metadata.labels = created.metadata.labels.clone();
    again.spec = pod("again", "contoso").spec;
    again.spec.as_mut().unwrap().image_pull_secrets =
        created.spec.as_ref().unwrap().image_pull_secrets.clone();
    assert_eq!(pull_secret_names(&namespace.create_pod(&again).await), names);
}

#[testkit::test]
async fn each_reference_adds_one_pull_secret() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_generator("scoped", json!({"scope": "repository:team-a/app:pull"}))
        .await;
    let names = pull_secret_names(&namespace.create_pod(&pod("app", "contoso, scoped,contoso")).await);
    assert_eq!(names.len(), 2);
    for name in &names {
        namespace.credentials(name).await;
    }
}

#[testkit::test]
async fn a_pod_may_have_a_generated_name_and_the_default_account() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_service_account("default", &[(CLIENT_ID, env.team_a.client_id)])
        .await;
    let nameless: Pod = from(json!({
        "metadata": {"generateName": "app-", "annotations": {ANNOTATION: "contoso"}},
        "spec": {"containers": [{"name": "app", "image": "x"}]},
    }));
    let name = pull_secret_name(&namespace.create_pod(&nameless).await);
    let subject = env.azure.records(Endpoint::EntraToken).remove(0).subject.unwrap();
    assert_eq!(subject, format!("system:serviceaccount:{namespace}:default"));
    namespace.credentials(&name).await;
}

#[testkit::test]
async fn a_service_account_named_by_the_generator_is_used_for_every_pod() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_service_account(
            "puller",
            &[("kubernetes.azure.com/acr-client-id", env.team_a.client_id)],
        )
        .await;
    let auth = json!({"workloadIdentity": {"serviceAccountRef": {"name": "puller"}}});
    namespace.apply_generator("shared", json!({"auth": auth})).await;
    let other = with_account(pod("other", "shared"), "default");
    let name = pull_secret_name(&namespace.create_pod(&pod("app", "shared")).await);
    assert_eq!(pull_secret_name(&namespace.create_pod(&other).await), name);
    let request = env.azure.records(Endpoint::EntraToken);
    assert_eq!(request.len(), 1);
    assert_eq!(
        request[0].subject.as_deref().unwrap(),
        format!("system:serviceaccount:{namespace}:puller")
    );
}

#[testkit::test]
async fn a_pod_without_a_reference_is_not_patched() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    for annotations in [json!(null), json!({"other": "x"}), json!({ANNOTATION: "none"})] {
        let mut plain = pod("plain", "");
        plain.metadata = from(json!({"generateName": "plain-", "annotations": annotations}));
        let created = namespace.create_pod(&plain).await;
        assert!(pull_secret_names(&created).is_empty());
        assert!(created.metadata.labels.is_none());
    }
    assert!(env.azure.requests().is_empty());
}

#[testkit::test]
async fn the_next_pod_uses_a_changed_service_account() {
    let env = TestEnv::start().await;
    let (namespace, key) = (&env.team_a.namespace, CLIENT_ID);
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    // The application of the other team does not trust this service account, which only a request can show.
    namespace
        .apply_service_account("app", &[(key, env.team_b.client_id)])
        .await;
    eventually("Entra is request as the other application", async || {
        namespace.create_pod(&unnamed_pod("contoso")).await;
        let request = env.azure.records(Endpoint::EntraToken);
        request
            .iter()
            .any(|r| r.client_id.as_deref() == Some(env.team_b.client_id))
            .then_some(())
    })
    .await;
    // The annotation of the kubelet credential provider takes precedence.
    let provider = ("kubernetes.azure.com/acr-client-id", env.team_a.client_id);
    namespace
        .apply_service_account("app", &[(key, env.team_b.client_id), provider])
        .await;
    eventually(
        "the pull secret belongs to the first application again",
        async || {
            namespace.create_pod(&unnamed_pod("contoso")).await;
            let status = namespace.status(&name).await;
            let ready = status.conditions[0].status == "True";
            (ready && status.client_id.as_deref() == Some(env.team_a.client_id)).then_some(())
        },
    )
    .await;
}

#[testkit::test]
async fn the_next_pod_uses_a_changed_generator() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    let uid = namespace.secrets().get(&name).await.unwrap().metadata.uid;

    namespace
        .apply_generator("contoso", json!({"scope": "repository:team-a/app:pull"}))
        .await;
    let status = eventually("a Pod gets the narrower token", async || {
        let next = unnamed_pod("contoso");
        assert_eq!(pull_secret_name(&namespace.create_pod(&next).await), name);
        let status = namespace.status(&name).await;
        status.scope.is_some().then_some(status)
    })
    .await;
    assert_eq!(status.secret_uid, uid, "the Secret was updated in place");
}
