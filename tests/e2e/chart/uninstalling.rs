//! What an uninstallation leaves on the cluster, and that the documented commands delete the rest.

use crate::{
    cluster::everything,
    release::{Release, delete, is_patched},
};
use acr_pull_webhook::pull_secret::ACRPullSecret;
use e2e::{
    client, eventually,
    scenario::{Scenario, ScenarioNamespace},
};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use std::{collections::BTreeSet, time::Duration};
use testkit::{eventually_within, observe};

const NOMINAL_LIMIT: Duration = Duration::from_secs(120);
/// What each uninstallation leaves: docs/uninstall.md lists the commands that delete it.
const LEFT: [&str; 8] = [
    "apiservices.apiregistration.k8s.io v1alpha1.generators.external-secrets.io",
    "configmaps. acr-pull-webhook/kube-root-ca.crt",
    "customresourcedefinitions.apiextensions.k8s.io acraccesstokens.generators.external-secrets.io",
    "customresourcedefinitions.apiextensions.k8s.io clustergenerators.generators.external-secrets.io",
    "namespaces. acr-pull-webhook",
    "secrets. acr-pull-webhook/acr-pull-webhook-certificates",
    "leases.coordination.k8s.io acr-pull-webhook/acr-pull-webhook-leader",
    "serviceaccounts. acr-pull-webhook/default",
];

#[testkit::test]
async fn an_uninstallation_with_its_crd_leaves_no_pull_secret() {
    let client = client().await;
    let release = Release::none(&client).await;
    let before = everything(&client).await;
    release.install(json!({"crds": {"keep": false}})).await;
    release.test().await;
    let (namespace, pull_secret) = run_app(&release, Scenario::UninstallWithCrds).await;

    release.uninstall().await;
    assert_unpatched(&namespace).await;
    assert_rest(&client, &release, &before, namespace, &pull_secret).await;
}

#[testkit::test]
async fn an_uninstallation_keeps_pull_secrets_until_their_crd_is_deleted() {
    let client = client().await;
    let release = Release::none(&client).await;
    let before = everything(&client).await;
    release.install(json!({})).await;
    let (namespace, pull_secret) = run_app(&release, Scenario::UninstallKeepingCrds).await;

    release.uninstall().await;
    assert_unpatched(&namespace).await;
    let kept = namespace.only_pull_secret().await;
    assert_eq!(kept.metadata.name.unwrap(), pull_secret);
    namespace.secrets().get(&pull_secret).await.unwrap();

    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    delete(&kinds, "acrpullsecrets.acr-pull.dev").await;
    assert_rest(&client, &release, &before, namespace, &pull_secret).await;
}

/// Runs a Pod, and returns its namespace and the name of its pull secret.
async fn run_app(release: &Release, scenario: Scenario) -> (ScenarioNamespace, String) {
    let namespace = release.runs_app(scenario).await;
    let pull_secret = namespace.only_pull_secret().await.metadata.name.unwrap();
    wait_until_collected(&namespace).await;
    (namespace, pull_secret)
}

/// Asserts that a new annotated Pod is admitted without a patch.
async fn assert_unpatched(namespace: &ScenarioNamespace) {
    let pod = namespace.create_app("after", Some("contoso")).await;
    assert!(!is_patched(&pod));
}

/// Waits until the garbage collector of Kubernetes watches the kind. It looks for new kinds every 30 s, and never
/// deletes the dependents of a kind that was deleted before that.
async fn wait_until_collected(namespace: &ScenarioNamespace) {
    let pull_secrets = namespace.pull_secrets();
    let probe = ACRPullSecret::new("acr-pull-probe", namespace.only_pull_secret().await.spec);
    pull_secrets.create(&PostParams::default(), &probe).await.unwrap();
    // Only the garbage collector completes a foreground deletion.
    pull_secrets
        .delete("acr-pull-probe", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("the garbage collector completes a deletion", async || {
        let probe = pull_secrets.get_opt("acr-pull-probe").await.unwrap();
        probe.is_none().then_some(())
    })
    .await;
}

/// Asserts that the pull secret is deleted, and that the documented commands delete all that is left.
async fn assert_rest(
    client: &Client,
    release: &Release,
    before: &BTreeSet<String>,
    namespace: ScenarioNamespace,
    pull_secret: &str,
) {
    namespace.wait_until_secret_is_gone(pull_secret).await;
    let namespaces = Api::<Namespace>::all(client.clone());
    delete(&namespaces, namespace.name()).await;
    wait_until_left(client, before, &LEFT).await;
    release.delete_namespace().await;
    release.delete_kinds().await;
    wait_until_left(client, before, &[]).await;
}

/// Waits until exactly these objects exist that did not exist `before`.
async fn wait_until_left(client: &Client, before: &BTreeSet<String>, left: &[&str]) {
    let expected: BTreeSet<_> = left.iter().map(|line| (*line).to_owned()).collect();
    let what = format!("exactly these objects are left: {expected:?}");
    eventually_within(NOMINAL_LIMIT, &what, async || {
        let now = everything(client).await;
        let left: BTreeSet<_> = now.difference(before).cloned().collect();
        observe(json!(left));
        (left == expected).then_some(())
    })
    .await;
}
