//! What a Pod gets.

use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::PostParams};
use serde_json::json;
use testkit::{
    azure::{REGISTRY, TENANT},
    env::TestEnv,
    eventually,
    objects::{ANNOTATION, from, pod, pull_secret_name, pull_secret_names, unnamed_pod, with_account},
};

#[testkit::test]
async fn an_annotated_pod_names_a_secret_that_exists_and_pulls_with_its_own_identity() {
    let env = TestEnv::start().await;
    let team = &env.team_a;
    let made = team.namespace.create_pod(&pod("app", "contoso")).await;
    let name = pull_secret_name(&made);

    env.assert_pulls(&team.namespace, &name, team.repository).await;
    assert_eq!(
        team.namespace.credentials(&name).await.0,
        "00000000-0000-0000-0000-000000000000"
    );
    assert_eq!(made.labels()["acr-pull.dev/injected"], "true");
    assert_eq!(made.annotations()["acr-pull.dev/pull-secrets"], name);

    let asked = env.azure.records(Endpoint::EntraToken).remove(0);
    assert_eq!(
        asked.subject.unwrap(),
        format!("system:serviceaccount:{}:app", team.namespace)
    );
    assert_eq!(asked.audience.as_deref(), Some("api://AzureADTokenExchange"));
    assert_eq!(
        asked.scope.as_deref(),
        Some("https://containerregistry.azure.net/.default")
    );
    env.assert_no_secret_was_logged();
}

#[testkit::test]
async fn the_acr_pull_secret_owns_the_secret_and_tells_its_state() {
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
        (
            owner.spec.generator.kind.as_str(),
            owner.spec.generator.name.as_str()
        ),
        ("ACRAccessToken", "contoso")
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
    let life = status
        .expiration_time
        .unwrap()
        .0
        .duration_since(status.last_renewal_time.unwrap().0);
    assert!(
        (10_700..=10_800).contains(&life.as_secs()),
        "an ACR refresh token lives three hours: {life}"
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
    let life = status
        .expiration_time
        .unwrap()
        .0
        .duration_since(status.last_renewal_time.unwrap().0);
    assert!(
        life.as_secs() <= 4500,
        "an ACR access token lives 75 minutes: {life}"
    );
}

#[testkit::test]
async fn a_dry_run_answers_the_same_patch_and_touches_nothing() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let tried = namespace.dry_run_pod(&pod("app", "contoso")).await.unwrap();
    let name = pull_secret_name(&tried);
    assert!(namespace.pull_secrets().get_opt(&name).await.unwrap().is_none());
    assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());
    assert!(env.azure.requests().is_empty());
    assert_eq!(
        pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await),
        name
    );
}

#[testkit::test]
async fn existing_pull_secrets_stay_first_and_a_second_call_adds_nothing() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    let mut with_own = pod("app", "contoso");
    with_own.spec.as_mut().unwrap().image_pull_secrets = from(json!([{"name": "mine"}]));
    let made = namespace.create_pod(&with_own).await;
    let names = pull_secret_names(&made);
    assert_eq!((names.len(), names[0].as_str()), (2, "mine"));

    // A copy of the patched Pod goes through the webhook again, as in a reinvocation.
    let mut again: Pod = from(json!({"metadata": {"name": "again"}}));
    again.metadata.annotations = made.metadata.annotations.clone();
    again.metadata.labels = made.metadata.labels.clone();
    again.spec = pod("again", "contoso").spec;
    again.spec.as_mut().unwrap().image_pull_secrets = made.spec.as_ref().unwrap().image_pull_secrets.clone();
    assert_eq!(pull_secret_names(&namespace.create_pod(&again).await), names);
}

#[testkit::test]
async fn several_references_give_several_pull_secrets() {
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
async fn generated_names_and_the_default_service_account_work() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    namespace
        .apply_service_account(
            "default",
            &[("azure.workload.identity/client-id", env.team_a.client_id)],
        )
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
    let asked = env.azure.records(Endpoint::EntraToken);
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].subject.as_deref().unwrap(),
        format!("system:serviceaccount:{namespace}:puller")
    );
}

#[testkit::test]
async fn a_pod_that_does_not_ask_is_left_alone() {
    let env = TestEnv::start().await;
    let namespace = &env.team_a.namespace;
    for annotations in [json!(null), json!({"other": "x"}), json!({ANNOTATION: "none"})] {
        let mut plain = pod("plain", "");
        plain.metadata = from(json!({"generateName": "plain-", "annotations": annotations}));
        let made = namespace.create_pod(&plain).await;
        assert!(pull_secret_names(&made).is_empty());
        assert!(made.metadata.labels.is_none());
    }
    assert!(env.azure.requests().is_empty());
}

#[testkit::test]
async fn an_edited_annotation_of_the_service_account_is_honoured_by_the_next_pod() {
    let env = TestEnv::start().await;
    let (namespace, key) = (&env.team_a.namespace, "azure.workload.identity/client-id");
    let name = pull_secret_name(&namespace.create_pod(&pod("one", "contoso")).await);
    // The application of the other team does not trust this service account: only who asks it hears so.
    namespace
        .apply_service_account("app", &[(key, env.team_b.client_id)])
        .await;
    eventually("Entra is asked as the other application", async || {
        namespace.create_pod(&unnamed_pod("contoso")).await;
        let asked = env.azure.records(Endpoint::EntraToken);
        asked
            .iter()
            .any(|r| r.client_id.as_deref() == Some(env.team_b.client_id))
            .then_some(())
    })
    .await;
    // And the kubelet credential provider's annotation, which wins, leads back.
    let provider = ("kubernetes.azure.com/acr-client-id", env.team_a.client_id);
    namespace
        .apply_service_account("app", &[(key, env.team_b.client_id), provider])
        .await;
    eventually("the pull secret is for the first one again", async || {
        namespace.create_pod(&unnamed_pod("contoso")).await;
        let status = namespace.status(&name).await;
        let ready = status.conditions[0].status == "True";
        (ready && status.client_id.as_deref() == Some(env.team_a.client_id)).then_some(())
    })
    .await;
}

#[testkit::test]
async fn an_edited_generator_is_honoured_by_the_next_pod() {
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
