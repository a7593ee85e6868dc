//! Pods on a real node pull private images by their own identity.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use acr_pull_webhook::generator::ClusterGenerator;
use e2e::{
    azure, client, eventually,
    team::{MACHINES, Settled, TEAMS, Team},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Namespace, Pod, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PostParams},
};
use serde_json::json;

const TEN: std::ops::Range<usize> = 6..16;

#[tokio::test]
async fn without_the_annotation_the_image_is_refused_and_with_it_the_pod_runs() {
    let client = client().await;
    let team = TEAMS[0].settle(&client, json!({})).await;
    team.create_pod("plain", &team.team.image(), None).await;
    team.create_pod("annotated", &team.team.image(), Some("contoso"))
        .await;
    team.runs("annotated").await;
    team.cannot_pull("plain").await;
    let asked = azure::requests_of(&client, &team.team.subject()).await;
    assert!(!asked.is_empty(), "Entra saw the Pod's own service account");
}

#[tokio::test]
async fn two_teams_pull_by_two_subjects_and_neither_pulls_the_others_image() {
    let client = client().await;
    let (a, b) = (
        TEAMS[1].settle(&client, json!({})).await,
        TEAMS[2].settle(&client, json!({})).await,
    );
    for (own, others) in [(&a, &b), (&b, &a)] {
        own.create_pod("own", &own.team.image(), Some("contoso")).await;
        own.create_pod("others", &others.team.image(), Some("contoso"))
            .await;
    }
    for team in [&a, &b] {
        team.runs("own").await;
        team.cannot_pull("others").await;
        assert!(!azure::requests_of(&client, &team.team.subject()).await.is_empty());
    }
}

#[tokio::test]
async fn a_scoped_token_pulls_what_it_names() {
    let client = client().await;
    let scope = format!("repository:{}:pull", TEAMS[3].repository());
    let team = TEAMS[3].settle(&client, json!({"scope": scope})).await;
    team.create_pod("app", &team.team.image(), Some("contoso")).await;
    team.runs("app").await;
    assert_eq!(team.pull_secret().await.status.unwrap().scope, Some(scope));
}

/// As a developer sees it: everything applied in one go, and no first pull fails.
#[tokio::test]
async fn ten_fresh_namespaces_start_without_one_failed_pull() {
    let client = client().await;
    let mut teams = Vec::new();
    for team in &TEAMS[TEN] {
        teams.push(team.settle_namespace(&client).await);
    }
    for team in &teams {
        team.settle_identity(json!({})).await;
        team.create_pod("first", &team.team.image(), Some("contoso"))
            .await;
    }
    for team in &teams {
        team.runs("first").await;
        let troubles = team.pull_troubles("first").await;
        assert!(troubles.is_empty(), "{}: {troubles:?}", team.team.namespace());
    }
}

#[tokio::test]
async fn init_ephemeral_and_sidecar_containers_of_a_job_pull_with_the_same_secret() {
    let client = client().await;
    let team = TEAMS[4].settle(&client, json!({})).await;
    let image = team.team.image();
    let init = json!({"name": "init", "image": image, "imagePullPolicy": "Always", "args": ["once"]});
    let sidecar =
        json!({"name": "sidecar", "image": image, "imagePullPolicy": "Always", "restartPolicy": "Always"});
    let template = json!({
        "metadata": {"annotations": {"acr-pull.dev/access-token": "contoso"}},
        "spec": {
            "serviceAccountName": "app",
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "initContainers": [init, sidecar],
            "containers": [{"name": "app", "image": image}],
        },
    });
    let job = json!({"metadata": {"name": "job"}, "spec": {"template": template}});
    let jobs: Api<Job> = team.api();
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap())
        .await
        .unwrap();
    let pods: Api<Pod> = team.api();
    let name = eventually("the Job's Pod runs", async || {
        let pod = pods
            .list(&Default::default())
            .await
            .unwrap()
            .items
            .into_iter()
            .next()?;
        let status = pod.status?;
        let mut all = status
            .container_statuses?
            .into_iter()
            .chain(status.init_container_statuses?);
        all.all(|c| c.ready).then_some(pod.metadata.name?)
    })
    .await;
    // As `kubectl debug` does it.
    let ephemeral = json!({"name": "debug", "image": image, "imagePullPolicy": "Always"});
    let ephemeral = json!({"spec": {"ephemeralContainers": [ephemeral]}});
    pods.patch_ephemeral_containers(&name, &Default::default(), &Patch::Strategic(ephemeral))
        .await
        .unwrap();
    eventually("the ephemeral container runs", async || {
        let status = pods.get(&name).await.unwrap().status?;
        let state = status.ephemeral_container_statuses?.into_iter().next()?.state?;
        state.running.map(drop)
    })
    .await;
    assert_eq!(azure::requests_of(&client, &TEAMS[4].subject()).await.len(), 1);
}

/// IMDS at its real address, asked by the webhook's own running Pods; where that address may be Azure's, App Service's form.
#[tokio::test]
async fn a_namespace_that_may_use_managed_identities_pulls_by_them_and_another_is_refused() {
    let client = client().await;
    let team = MACHINES.settle_namespace(&client).await;
    team.settle_account().await;
    for (name, id) in [
        ("system", json!(null)),
        ("by-client-id", json!(azure::PULLER)),
        ("by-resource-id", json!(azure::PULLER_RESOURCE)),
    ] {
        let auth = json!({"managedIdentity": {"identityId": id}});
        team.generator(name, json!({"auth": auth})).await;
        team.create_pod(name, &MACHINES.image(), Some(name)).await;
    }
    for name in ["system", "by-client-id", "by-resource-id"] {
        team.runs(name).await;
    }
    for pull_secret in team.pull_secrets().await {
        assert_eq!(
            pull_secret.status.unwrap().identity.as_deref(),
            Some("ManagedIdentity")
        );
    }
    let asked = azure::requests_of_machines(&client).await;
    if std::env::var("CLUSTER").is_ok_and(|cluster| cluster != "other") {
        assert!(
            asked.iter().all(|record| record.host == "169.254.169.254"),
            "{asked:?}"
        );
    }
    for identity in [azure::MACHINE, azure::PULLER] {
        assert!(
            asked
                .iter()
                .any(|record| record.client_id.as_deref() == Some(identity)),
            "{identity}"
        );
    }

    let other = TEAMS[19]
        .settle(&client, json!({"auth": {"managedIdentity": {}}}))
        .await;
    let refused = other.refused_pod("app", &MACHINES.image(), "contoso").await;
    assert!(refused.contains("ManagedIdentityNotAllowed"), "{refused}");
}

#[tokio::test]
async fn a_labelled_namespace_lets_a_pod_pull_that_says_nothing() {
    let client = client().await;
    let team = TEAMS[20].settle(&client, json!({})).await;
    let namespaces = Api::<Namespace>::all(client.clone());
    let label = json!({"metadata": {"labels": {"acr-pull.dev/access-token": "contoso"}}});
    namespaces
        .patch(&TEAMS[20].namespace(), &Default::default(), &Patch::Merge(label))
        .await
        .unwrap();
    // The API server learns of the label with a little delay.
    let labelled = eventually("the webhook is asked", async || {
        let name = format!("app-{}", team.pods_made().await);
        let made = team.create_pod(&name, &TEAMS[20].image(), None).await;
        made.spec?.image_pull_secrets.map(|_| name)
    })
    .await;
    team.runs(&labelled).await;
}

/// Nobody but the kubelet tells us: we cannot read Secrets.
#[tokio::test]
async fn a_secret_that_is_deleted_by_hand_comes_back_for_a_pod_that_waits_for_it() {
    let client = client().await;
    let team = one(TEAMS[21], &client).await;
    let name = team.pull_secret().await.metadata.name.unwrap();
    let secrets = team.api::<Secret>();
    secrets.delete(&name, &Default::default()).await.unwrap();
    // Admitted with the name of a Secret that is not there.
    team.create_pod("waiting", &TEAMS[21].image(), Some("contoso"))
        .await;
    team.runs("waiting").await;
    assert!(secrets.get_opt(&name).await.unwrap().is_some());
}

#[tokio::test]
async fn a_cluster_generator_serves_two_namespaces_by_each_pods_own_service_account() {
    let client = client().await;
    let spec = json!({"kind": "ACRAccessToken", "generator": {"acrAccessTokenSpec": {
        "registry": azure::REGISTRY, "tenantId": azure::TENANT, "auth": {"workloadIdentity": {}}}}});
    let generators = Api::<ClusterGenerator>::all(client.clone());
    let _ = generators.delete("acr-pull-e2e", &Default::default()).await;
    let whole = json!({"metadata": {"name": "acr-pull-e2e"}, "spec": spec});
    generators
        .create(&PostParams::default(), &serde_json::from_value(whole).unwrap())
        .await
        .unwrap();
    for team in [TEAMS[16], TEAMS[17]] {
        let settled = team.settle_namespace(&client).await;
        settled.settle_account().await;
        settled
            .create_pod("app", &team.image(), Some("ClusterGenerator/acr-pull-e2e"))
            .await;
        settled.runs("app").await;
        assert_eq!(
            settled.pull_secret().await.spec.generator.kind,
            "ClusterGenerator"
        );
        assert_eq!(azure::requests_of(&client, &team.subject()).await.len(), 1);
    }
}

#[tokio::test]
async fn deleting_the_acr_pull_secret_takes_the_secret_with_it() {
    let client = client().await;
    let team: Settled = one(TEAMS[5], &client).await;
    let owner = team.pull_secret().await;
    let name = owner.metadata.name.unwrap();
    assert_eq!(
        team.secret(&name).await.type_.as_deref(),
        Some("kubernetes.io/dockerconfigjson")
    );
    // Under a live Pod it would come back.
    let pods = team.api::<Pod>();
    pods.delete("app", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    eventually("the Pod is gone", async || {
        pods.get_opt("app").await.unwrap().is_none().then_some(())
    })
    .await;
    team.api::<acr_pull_webhook::pull_secret::ACRPullSecret>()
        .delete(&name, &Default::default())
        .await
        .unwrap();
    let secrets = team.api::<Secret>();
    eventually("the garbage collector takes it", async || {
        secrets.get_opt(&name).await.unwrap().is_none().then_some(())
    })
    .await;
}

/// A team with one running Pod.
async fn one(team: Team, client: &kube::Client) -> Settled {
    let settled = team.settle(client, json!({})).await;
    settled.create_pod("app", &team.image(), Some("contoso")).await;
    settled.runs("app").await;
    settled
}
