//! What an uninstallation leaves, and that it is nothing once the documented commands are given too.

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
    api::core::v1::{Namespace, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use serde_json::json;
use std::{cell::RefCell, collections::BTreeSet, time::Duration};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(120);
/// Left by every uninstallation: docs/install.md tells what removes it.
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
async fn an_uninstallation_with_its_kind_leaves_no_pull_secret_and_nothing_in_the_way() {
    let client = client().await;
    let release = Release::none(&client).await;
    let before = everything(&client).await;
    release.install(json!({"crds": {"keep": false}})).await;
    release.test().await;
    let team = release.serves(Scenario::UninstallWithCrds).await;
    let pull_secret = team.only_pull_secret().await.metadata.name.unwrap();
    collector_knows_pull_secrets(&team).await;

    release.uninstall().await;
    is_not_in_the_way(&team).await;
    goes(&team, &pull_secret).await;
    team_goes(&team).await;
    leaves(&client, &before, &LEFT).await;
    release.delete_namespace().await;
    release.delete_kinds().await;
    leaves(&client, &before, &[]).await;
}

#[testkit::test]
async fn an_uninstallation_keeps_pull_secrets_until_their_kind_is_deleted() {
    let client = client().await;
    let release = Release::none(&client).await;
    let before = everything(&client).await;
    release.install(json!({})).await;
    let team = release.serves(Scenario::UninstallKeepingCrds).await;
    let pull_secret = team.only_pull_secret().await.metadata.name.unwrap();
    collector_knows_pull_secrets(&team).await;

    release.uninstall().await;
    is_not_in_the_way(&team).await;
    assert_eq!(team.only_pull_secret().await.metadata.name.unwrap(), pull_secret);
    team.secrets().get(&pull_secret).await.unwrap();

    let kinds = Api::<CustomResourceDefinition>::all(client.clone());
    delete(&kinds, "acrpullsecrets.acr-pull.dev").await;
    goes(&team, &pull_secret).await;
    team_goes(&team).await;
    leaves(&client, &before, &LEFT).await;
    release.delete_namespace().await;
    release.delete_kinds().await;
    leaves(&client, &before, &[]).await;
}

/// The first Pod that asks after it is admitted as it was written.
async fn is_not_in_the_way(team: &ScenarioNamespace) {
    let pod = team.create_app("after", Some("contoso")).await;
    assert!(!is_patched(&pod));
}

/// Waits until Kubernetes' garbage collector watches the kind. It looks for new kinds each 30 s, and never deletes what objects
/// owned whose kind was deleted before that.
async fn collector_knows_pull_secrets(team: &ScenarioNamespace) {
    let pull_secrets = team.api::<ACRPullSecret>();
    let probe = ACRPullSecret::new("acr-pull-probe", team.only_pull_secret().await.spec);
    pull_secrets.create(&PostParams::default(), &probe).await.unwrap();
    // Nobody else ends such a deletion.
    pull_secrets
        .delete("acr-pull-probe", &DeleteParams::foreground())
        .await
        .unwrap();
    eventually("the garbage collector ends a deletion", async || {
        pull_secrets
            .get_opt("acr-pull-probe")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
}

async fn goes(team: &ScenarioNamespace, secret: &str) {
    eventually(&format!("Secret {secret} is gone"), async || {
        let secret = team.api::<Secret>().get_opt(secret).await.unwrap();
        secret.is_none().then_some(())
    })
    .await;
}

/// Waits until exactly this has come since `before`.
async fn leaves(client: &Client, before: &BTreeSet<String>, left: &[&str]) {
    let expected: BTreeSet<_> = left.iter().map(|line| (*line).to_owned()).collect();
    let seen = RefCell::new(BTreeSet::new());
    let wait = timeout(PATIENCE, async {
        while *seen.borrow() != expected {
            let now = everything(client).await;
            seen.replace(now.difference(before).cloned().collect());
        }
    });
    if wait.await.is_err() {
        panic!("left: {:#?}, not: {expected:#?}", seen.borrow());
    }
}

async fn team_goes(team: &ScenarioNamespace) {
    let namespaces = Api::<Namespace>::all(team.client.clone());
    delete(&namespaces, &team.name()).await;
}
