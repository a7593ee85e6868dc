//! Forged reviews: an attacker who does not know the secret path causes no call and no object.

use super::{
    attacker::{Attacker, GUESSED_PATHS},
    bystanders::Bystanders,
};
use azure_emulator::Endpoint;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::{ResourceExt, api::PostParams};
use serde_json::json;
use std::time::Duration;
use testkit::{
    env::TestEnv,
    namespace::TestNamespace,
    objects::{CLIENT_ID, from, pod, pull_secret_name, with_account},
    review::review,
};

/// The names of the webhook's objects in a namespace.
async fn written(namespace: &TestNamespace) -> Vec<String> {
    let secrets = namespace.secrets().list(&Default::default()).await.unwrap();
    let secrets = secrets.items.iter().map(ResourceExt::name_any);
    let owners = namespace.list_pull_secrets().await;
    let owners = owners.iter().map(ResourceExt::name_any);
    let mut names: Vec<_> = secrets.chain(owners).collect();
    names.retain(|name| name.starts_with("acr-pull-"));
    names
}

/// Posts a review to each guessed path, and asserts that all answers are 404.
async fn forge(env: &TestEnv, namespace: &TestNamespace, pod: &Pod) {
    for path in GUESSED_PATHS {
        let url = format!("https://{}{path}?timeout=10s", env.webhook.address);
        let request = env.webhook.client().post(url).json(&review(namespace, pod));
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 404, "{path}");
    }
}

/// A forged review for kube-system with a ClusterGenerator, and one for team B.
#[testkit::test]
async fn a_forged_review_creates_no_pull_secret() {
    let env = TestEnv::start().await;
    let reference = env.cluster_generator(json!({})).await;
    let (team_a, team_b) = (&env.team_a.namespace, &env.team_b.namespace);
    let system = env.namespace("kube-system");
    // The account may exist: the namespace is shared by all tests.
    let annotations = json!({CLIENT_ID: env.team_b.client_id});
    let account = from(json!({"metadata": {"name": "infra", "annotations": annotations}}));
    let accounts = system.api::<ServiceAccount>();
    let _ = accounts.create(&PostParams::default(), &account).await;
    team_b.apply_generator("forged", json!({})).await;
    let name = pull_secret_name(&team_a.create_pod(&pod("app", "contoso")).await);
    assert!(!name.is_empty());

    let calls = env.azure.calls(Endpoint::EntraToken);
    forge(&env, &system, &with_account(pod("infra", &reference), "infra")).await;
    forge(&env, team_b, &pod("forged", "forged")).await;
    assert_eq!(written(&system).await, [""; 0]);
    assert_eq!(written(team_b).await, [""; 0]);
    assert_eq!(env.azure.calls(Endpoint::EntraToken), calls);
}

/// Forged reviews with unknown client ids, 10 per second.
#[testkit::test]
async fn forged_reviews_cause_no_call() {
    let env = TestEnv::start().await;
    let unknown = "cccccccc-cccc-cccc-cccc-cccccccccccc";
    env.create_workload("unknown", unknown, json!({})).await;
    let (bystanders, attacker) = (Bystanders::of_two(&env).await, Attacker::of(&env.webhook));
    let calls = env.azure.calls(Endpoint::EntraToken);
    let forged = with_account(pod("forged", "unknown"), "unknown");
    let body = review(&env.team_a.namespace, &forged);
    let client = env.webhook.client();
    let attack = attacker.attack(10, Duration::from_secs(1), async |n| {
        let path = GUESSED_PATHS[n % GUESSED_PATHS.len()];
        let url = format!("https://{}{path}", env.webhook.address);
        let reply = client.post(url).json(&body).send().await.unwrap();
        assert_eq!(reply.status(), 404);
        attacker.count();
        Ok(())
    });
    attacker.check(&bystanders, 30, attack).await;
    assert_eq!(env.azure.calls(Endpoint::EntraToken), calls);
    assert_eq!(written(&env.team_a.namespace).await, [""; 0]);
}
