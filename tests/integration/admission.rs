//! What a Pod gets.

use super::site::{
    ANNOTATION, REGISTRY, Site, TENANT, from, pod, pull_secret_name, pull_secret_names, unnamed,
};
use acr_pull_webhook::{
    pull_secret::{GeneratorReference, StoredKind},
    reference::Kind,
};
use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::PostParams};
use serde_json::json;

#[tokio::test]
async fn an_annotated_pod_names_a_secret_that_exists_and_pulls_with_its_own_identity() {
    let site = Site::start().await;
    let team = &site.a;
    let made = site.create(&team.namespace, &pod("app", "contoso")).await;
    let name = pull_secret_name(&made);

    assert_eq!(
        site.opens(&team.namespace, &name, team.repository).await,
        502,
        "authorised; no registry is behind it"
    );
    assert_eq!(
        site.credentials(&team.namespace, &name).await.0,
        "00000000-0000-0000-0000-000000000000"
    );
    assert_eq!(made.labels()["acr-pull.dev/injected"], "true");
    assert_eq!(made.annotations()["acr-pull.dev/pull-secrets"], name);

    let asked = site.records(Endpoint::EntraToken).remove(0);
    assert_eq!(
        asked.subject.unwrap(),
        format!("system:serviceaccount:{}:app", team.namespace)
    );
    assert_eq!(asked.audience.as_deref(), Some("api://AzureADTokenExchange"));
    assert_eq!(
        asked.scope.as_deref(),
        Some("https://containerregistry.azure.net/.default")
    );
    site.assert_no_secret_was_logged();
}

#[tokio::test]
async fn the_acr_pull_secret_owns_the_secret_and_tells_its_state() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await);

    let owner = site.pull_secrets(namespace).get(&name).await.unwrap();
    let secret = site.secrets(namespace).get(&name).await.unwrap();
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
    assert_eq!(status.client_id.as_deref(), Some(site.a.client_id));
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

#[tokio::test]
async fn a_scope_in_the_generator_narrows_the_token() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    site.generator(
        namespace,
        "scoped",
        json!({"scope": "repository:team-a/app:pull"}),
    )
    .await;
    let name = pull_secret_name(&site.create(namespace, &pod("app", "scoped")).await);
    assert_eq!(site.calls(Endpoint::AcrToken), 1);
    assert_eq!(site.opens(namespace, &name, "team-a/app").await, 502);
    let status = site.status(namespace, &name).await;
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

#[tokio::test]
async fn a_dry_run_answers_the_same_patch_and_touches_nothing() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let tried = site
        .pods(namespace)
        .create(&dry_run, &pod("app", "contoso"))
        .await
        .unwrap();
    let name = pull_secret_name(&tried);
    assert!(
        site.pull_secrets(namespace)
            .get_opt(&name)
            .await
            .unwrap()
            .is_none()
    );
    assert!(site.secrets(namespace).get_opt(&name).await.unwrap().is_none());
    assert!(site.emulator.requests().is_empty());
    assert_eq!(
        pull_secret_name(&site.create(namespace, &pod("app", "contoso")).await),
        name
    );
}

#[tokio::test]
async fn existing_pull_secrets_stay_first_and_a_second_call_adds_nothing() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let mut with_own = pod("app", "contoso");
    with_own.spec.as_mut().unwrap().image_pull_secrets = from(json!([{"name": "mine"}]));
    let made = site.create(namespace, &with_own).await;
    let names = pull_secret_names(&made);
    assert_eq!((names.len(), names[0].as_str()), (2, "mine"));

    // A copy of the patched Pod goes through the webhook again, as in a reinvocation.
    let mut again: Pod = from(json!({"metadata": {"name": "again"}}));
    again.metadata.annotations = made.metadata.annotations.clone();
    again.metadata.labels = made.metadata.labels.clone();
    again.spec = pod("again", "contoso").spec;
    again.spec.as_mut().unwrap().image_pull_secrets = made.spec.as_ref().unwrap().image_pull_secrets.clone();
    assert_eq!(pull_secret_names(&site.create(namespace, &again).await), names);
}

#[tokio::test]
async fn several_references_give_several_pull_secrets() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    site.generator(
        namespace,
        "scoped",
        json!({"scope": "repository:team-a/app:pull"}),
    )
    .await;
    let names = pull_secret_names(
        &site
            .create(namespace, &pod("app", "contoso, scoped,contoso"))
            .await,
    );
    assert_eq!(names.len(), 2);
    for name in &names {
        site.credentials(namespace, name).await;
    }
}

#[tokio::test]
async fn generated_names_and_the_default_service_account_work() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    site.service_account(
        namespace,
        "default",
        &[("azure.workload.identity/client-id", site.a.client_id)],
    )
    .await;
    let nameless: Pod = from(json!({
        "metadata": {"generateName": "app-", "annotations": {ANNOTATION: "contoso"}},
        "spec": {"containers": [{"name": "app", "image": "x"}]},
    }));
    let name = pull_secret_name(&site.create(namespace, &nameless).await);
    let subject = site.records(Endpoint::EntraToken).remove(0).subject.unwrap();
    assert_eq!(subject, format!("system:serviceaccount:{namespace}:default"));
    site.credentials(namespace, &name).await;
}

#[tokio::test]
async fn a_service_account_named_by_the_generator_is_used_for_every_pod() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    site.service_account(
        namespace,
        "puller",
        &[("kubernetes.azure.com/acr-client-id", site.a.client_id)],
    )
    .await;
    let auth = json!({"workloadIdentity": {"serviceAccountRef": {"name": "puller"}}});
    site.generator(namespace, "shared", json!({"auth": auth})).await;
    let mut other = pod("other", "shared");
    other.spec.as_mut().unwrap().service_account_name = Some("default".to_owned());
    let name = pull_secret_name(&site.create(namespace, &pod("app", "shared")).await);
    assert_eq!(pull_secret_name(&site.create(namespace, &other).await), name);
    let asked = site.records(Endpoint::EntraToken);
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].subject.as_deref().unwrap(),
        format!("system:serviceaccount:{namespace}:puller")
    );
}

#[tokio::test]
async fn a_pod_that_does_not_ask_is_left_alone() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    for annotations in [json!(null), json!({"other": "x"}), json!({ANNOTATION: "none"})] {
        let mut plain = pod("plain", "");
        plain.metadata = from(json!({"generateName": "plain-", "annotations": annotations}));
        let made = site.create(namespace, &plain).await;
        assert!(pull_secret_names(&made).is_empty());
        assert!(made.metadata.labels.is_none());
    }
    assert!(site.emulator.requests().is_empty());
}

#[tokio::test]
async fn an_edited_annotation_of_the_service_account_is_honoured_by_the_next_pod() {
    let site = Site::start().await;
    let (namespace, key) = (&site.a.namespace, "azure.workload.identity/client-id");
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    // The application of the other team does not trust this service account: only who asks it hears so.
    site.service_account(namespace, "app", &[(key, site.b.client_id)])
        .await;
    super::site::eventually("Entra is asked as the other application", async || {
        site.create(namespace, &unnamed("contoso")).await;
        let asked = site.records(Endpoint::EntraToken);
        asked
            .iter()
            .any(|r| r.client_id.as_deref() == Some(site.b.client_id))
            .then_some(())
    })
    .await;
    // And the kubelet credential provider's annotation, which wins, leads back.
    let provider = ("kubernetes.azure.com/acr-client-id", site.a.client_id);
    site.service_account(namespace, "app", &[(key, site.b.client_id), provider])
        .await;
    super::site::eventually("the pull secret is for the first one again", async || {
        site.create(namespace, &unnamed("contoso")).await;
        let status = site.status(namespace, &name).await;
        let ready = status.conditions[0].status == "True";
        (ready && status.client_id.as_deref() == Some(site.a.client_id)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_edited_generator_is_honoured_by_the_next_pod() {
    let site = Site::start().await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("one", "contoso")).await);
    let uid = site.secrets(namespace).get(&name).await.unwrap().metadata.uid;

    site.generator(
        namespace,
        "contoso",
        json!({"scope": "repository:team-a/app:pull"}),
    )
    .await;
    let status = super::site::eventually("a Pod gets the narrower token", async || {
        let next = unnamed("contoso");
        assert_eq!(pull_secret_name(&site.create(namespace, &next).await), name);
        let status = site.status(namespace, &name).await;
        status.scope.is_some().then_some(status)
    })
    .await;
    assert_eq!(status.secret_uid, uid, "the Secret was updated in place");
}
