//! What a pull secret depends on is removed while Pods use it, and added again.

use crate::upkeep::{entra_down, wait_until_ready, warnings_about};
use acr_pull_webhook::generator::ACRAccessToken;
use azure_emulator::Endpoint;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use testkit::{
    azure::{add_application, token_lifetime},
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{from, pod, pod_of, pull_secret_name},
};

/// Something that a pull secret depends on, and that is removed while a Pod uses it. The workload has the name `of`.
struct Loss {
    of: &'static str,
    client_id: &'static str,
    reason: &'static str,
    /// A part of the message of the condition.
    text: &'static str,
    /// Whether only Entra or the registry can notice the loss.
    is_remote: bool,
}

const LOSSES: [Loss; 5] = [
    Loss {
        of: "account",
        client_id: "cccccccc-0001-cccc-cccc-cccccccccccc",
        reason: "ServiceAccountNotFound",
        text: "service account \"account\" does not exist",
        is_remote: false,
    },
    Loss {
        of: "generator",
        client_id: "cccccccc-0002-cccc-cccc-cccccccccccc",
        reason: "GeneratorNotFound",
        text: "no ACRAccessToken \"generator\" exists",
        is_remote: false,
    },
    Loss {
        of: "credential",
        client_id: "cccccccc-0003-cccc-cccc-cccccccccccc",
        reason: "FederatedCredentialNotFound",
        text: "az identity federated-credential create",
        is_remote: true,
    },
    Loss {
        of: "application",
        client_id: "cccccccc-0004-cccc-cccc-cccccccccccc",
        reason: "EntraRefused",
        text: "AADSTS700016",
        is_remote: true,
    },
    Loss {
        of: "right",
        client_id: "cccccccc-0005-cccc-cccc-cccccccccccc",
        reason: "RoleAssignmentNotFound",
        text: "AcrPull",
        is_remote: true,
    },
];

/// Azure without the credential, the application and the right of these workloads.
fn without_losses(world: &Value) -> Value {
    let [_, _, credential, application, right] = LOSSES.map(|loss| loss.client_id);
    let mut world = world.clone();
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    applications.retain(|one| one["clientId"] != application);
    for one in applications
        .iter_mut()
        .filter(|one| one["clientId"] == credential)
    {
        one["federatedCredentials"] = json!([]);
    }
    let rights = world["registries"][0]["rights"].as_array_mut().unwrap();
    rights.retain(|one| one["clientId"] != application && one["clientId"] != right);
    world
}

async fn create_workloads(env: &TestEnv) {
    for Loss { of, client_id, .. } in LOSSES {
        env.create_workload(of, client_id, json!({})).await;
    }
}

/// Waits until the conditions of these pull secrets report the losses.
async fn wait_for_reports(namespace: &TestNamespace, names: &[String]) {
    for (loss, name) in LOSSES.iter().zip(names) {
        eventually(loss.reason, async || {
            let condition = namespace.status(name).await.conditions.remove(0);
            let is_reported = condition.status == "False" && condition.reason == loss.reason;
            (is_reported && condition.message.contains(loss.text)).then_some(())
        })
        .await;
    }
}

/// Asserts that attempts follow the back-off of 5 s, 10 s, 20 s …, and that one Event reports the loss.
async fn assert_back_off(env: &TestEnv, loss: &Loss, name: &str) {
    let namespace = &env.team_a.namespace;
    let calls = env.azure.calls_of(loss.client_id, Endpoint::EntraToken);
    // The first attempt preceded the count.
    let first = namespace.status(name).await.conditions[0].last_transition_time.0;
    let seconds = Timestamp::now().duration_since(first).as_secs();
    let attempts = (1..).take_while(|n| 5 * (2_i64.pow(*n) - 1) <= seconds).count();
    let limit = if loss.is_remote { attempts } else { 0 };
    assert!(
        calls <= limit,
        "{}: {calls} calls to Entra, at most {limit}",
        loss.of
    );
    assert_eq!(warnings_about(namespace, name).await, [loss.reason]);
}

#[testkit::test]
async fn losses_are_reported_once_and_repaired_after_their_return() {
    let mut whole = Value::Null;
    let env = TestEnv::leading(&[], |world| {
        token_lifetime(10)(world);
        for Loss { of, client_id, .. } in LOSSES {
            add_application(world, of, client_id);
        }
        whole = world.clone();
    })
    .await;
    let namespace = &env.team_a.namespace;
    let unaffected = pull_secret_name(&namespace.create_pod(&pod("app", "contoso")).await);
    create_workloads(&env).await;
    let admitted = LOSSES.map(|loss| async { namespace.create_pod(&pod_of(loss.of)).await });
    let names: Vec<_> = join_all(admitted).await.iter().map(pull_secret_name).collect();

    env.azure.apply(&without_losses(&whole));
    let params = DeleteParams::default();
    let accounts = namespace.api::<ServiceAccount>();
    accounts.delete("account", &params).await.unwrap();
    let generators = namespace.api::<ACRAccessToken>();
    generators.delete("generator", &params).await.unwrap();
    wait_for_reports(namespace, &names).await;
    env.azure.clear_requests();
    // Too frequent attempts happen within the time of two renewals.
    namespace.wait_for_renewals(&unaffected, 2).await;
    for (loss, name) in LOSSES.iter().zip(&names) {
        assert_back_off(&env, loss, name).await;
    }

    env.azure.apply(&whole);
    create_workloads(&env).await;
    for name in &names {
        wait_until_ready(namespace, name).await;
        assert!(namespace.expires_at(name).await > Timestamp::now());
    }
    env.assert_no_secret_was_logged();
}

/// The warnings in the log about a namespace.
fn logged_warnings(env: &TestEnv, namespace: &TestNamespace) -> Vec<String> {
    let mut lines = env.webhook.log();
    lines.retain(|line| {
        let entry: Value = serde_json::from_str(line).unwrap_or_default();
        (entry["level"] == "WARN" || entry["level"] == "ERROR") && line.contains(namespace.name())
    });
    lines
}

/// Waits until the webhook logs no warning about a deleted namespace while another namespace has two renewals.
async fn wait_until_silent(env: &TestEnv, deleted: &TestNamespace, renewed: &str) {
    eventually("the webhook logs nothing about the namespace", async || {
        let before = logged_warnings(env, deleted);
        env.team_b.namespace.wait_for_renewals(renewed, 2).await;
        (logged_warnings(env, deleted) == before).then_some(())
    })
    .await;
}

/// Creates a Pod on a node without a kubelet: it exists until it is deleted without a grace period.
async fn create_lasting_pod(env: &TestEnv, namespace: &TestNamespace) -> String {
    let node: Node = from(json!({"metadata": {"name": "silent"}}));
    let nodes = Api::all(env.client.clone());
    nodes.create(&PostParams::default(), &node).await.unwrap();
    let mut lasting = pod("app", "contoso");
    lasting.spec.as_mut().unwrap().node_name = node.metadata.name;
    pull_secret_name(&namespace.create_pod(&lasting).await)
}

#[testkit::test]
async fn nothing_is_created_in_a_namespace_that_is_deleted() {
    const TROUBLED: &str = "cccccccc-0001-cccc-cccc-cccccccccccc";
    let env = TestEnv::leading(&[], |world| {
        token_lifetime(10)(world);
        add_application(world, "troubled", TROUBLED);
    })
    .await;
    let (deleted, other) = (&env.team_a.namespace, &env.team_b.namespace);
    let renewed = pull_secret_name(&other.create_pod(&pod("app", "contoso")).await);
    let name = create_lasting_pod(&env, deleted).await;
    // The webhook retries this pull secret during the deletion.
    let mut fault = entra_down();
    fault[0].client_id = Some(TROUBLED.to_owned());
    env.azure.set_faults(&fault);
    env.create_workload("troubled", TROUBLED, json!({})).await;
    deleted.create_pod(&pod_of("troubled")).await;
    deleted.begin_deletion().await;
    // The API server issues no assertion in the namespace, so Entra is not asked. Before Kubernetes 1.33, the pull
    // secret may be deleted before the Pods.
    eventually("the condition states why there is no new token", async || {
        let Some(owner) = deleted.pull_secrets().get_opt(&name).await.unwrap() else {
            return Some(());
        };
        (owner.status?.conditions[0].reason == "NamespaceTerminating").then_some(())
    })
    .await;
    env.azure.clear_requests();
    wait_until_silent(&env, deleted, &renewed).await;
    // Some API servers delete pull secrets before the Pods have ended.
    let pull_secrets = deleted.pull_secrets();
    let (params, all) = (DeleteParams::default(), ListParams::default());
    pull_secrets.delete_collection(&params, &all).await.unwrap();
    wait_until_silent(&env, deleted, &renewed).await;
    assert!(deleted.pods().get_opt("app").await.unwrap().is_some());
    assert!(deleted.list_pull_secrets().await.is_empty());

    deleted.delete_pod("app").await;
    deleted.wait_until_gone().await;
    wait_until_silent(&env, deleted, &renewed).await;
    for client_id in [env.team_a.client_id, TROUBLED] {
        assert_eq!(env.azure.calls_of(client_id, Endpoint::EntraToken), 0);
    }
}
