//! Changes in Azure that take effect minutes after the Pods were created: a federated credential and a role assignment.

use serde_json::{Value, json};
use testkit::{
    azure::add_application,
    env::TestEnv,
    eventually,
    objects::{pod_of, pull_secret_name},
    review::{post, review},
};

/// Something that a Pod needs in Azure and that is not in effect yet.
struct Missing {
    /// The name of the workload.
    of: &'static str,
    client_id: &'static str,
    reason: &'static str,
}

const MISSING: [Missing; 2] = [
    Missing {
        of: "credential",
        client_id: "cccccccc-0001-cccc-cccc-cccccccccccc",
        reason: "FederatedCredentialNotFound",
    },
    Missing {
        of: "role",
        client_id: "cccccccc-0002-cccc-cccc-cccccccccccc",
        reason: "RoleAssignmentNotFound",
    },
];

/// Azure before the changes.
fn before(world: &Value) -> Value {
    let [credential, role] = MISSING.map(|missing| missing.client_id);
    let mut world = world.clone();
    let applications = world["tenants"][0]["applications"].as_array_mut().unwrap();
    for application in applications {
        if application["clientId"] == credential {
            application["federatedCredentials"] = json!([]);
        }
    }
    let rights = world["registries"][0]["rights"].as_array_mut().unwrap();
    rights.retain(|right| right["clientId"] != role);
    world
}

/// The webhook is not the leader, so the token is that of the admission.
#[testkit::test]
async fn a_later_credential_or_role_completes_the_pull_secret() {
    let mut whole = Value::Null;
    let env = TestEnv::with(&[], |world| {
        for Missing { of, client_id, .. } in MISSING {
            add_application(world, of, client_id);
        }
        whole = world.clone();
        *world = before(world);
    })
    .await;
    let namespace = &env.team_a.namespace;
    let mut names = Vec::new();
    for Missing {
        of,
        client_id,
        reason,
    } in MISSING
    {
        env.create_workload(of, client_id, json!({})).await;
        let answer = post(&env, &review(namespace, &pod_of(of))).await;
        let warning = answer["response"]["warnings"][0].as_str().unwrap();
        assert!(warning.contains(reason), "{warning}");
        let name = pull_secret_name(&namespace.create_pod(&pod_of(of)).await);
        assert!(namespace.secrets().get_opt(&name).await.unwrap().is_none());
        eventually("the condition reports what is missing", async || {
            let ready = namespace.pull_secret(&name).await.status?.conditions.remove(0);
            (ready.status == "False" && ready.reason == reason).then_some(())
        })
        .await;
        names.push(name);
    }
    env.azure.apply(&whole);
    for name in &names {
        eventually("the token follows without another Pod", async || {
            namespace.secrets().get_opt(name).await.unwrap()?;
            namespace.status(name).await.is_ready().then_some(())
        })
        .await;
        env.assert_pulls(namespace, name, env.team_a.repository).await;
    }
}
