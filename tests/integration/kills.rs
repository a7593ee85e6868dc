//! The leader is killed between any two of its writes.

use azure_emulator::Endpoint;
use jiff::Timestamp;
use kube::{ResourceExt, api::ListParams};
use serde_json::json;
use testkit::{
    api_proxy::{Lost, Write},
    azure::token_lifetime,
    env::TestEnv,
    eventually,
    namespace::TestNamespace,
    objects::{pod, pull_secret_name},
};

/// Creates a Pod, as often as it is refused, and deletes it at once, so that all kinds of write happen.
async fn create_and_delete(namespace: &TestNamespace, name: &str) {
    namespace.retry_create_pod(&pod(name, name)).await;
    namespace.delete_pod(name).await;
}

/// Kills the leader at each kind of write, before the request and after it, while pull secrets are created and
/// collected; returns the number of kills.
async fn kill_at_each_write(env: &mut TestEnv) -> usize {
    let namespace = env.team_a.namespace.clone();
    let mut kills = 0;
    for write in [
        Write::Owner,
        Write::Secret,
        Write::Status,
        Write::UnusedSince,
        Write::Delete,
    ] {
        for lost in [Lost::Request, Lost::Response] {
            kills += 1;
            let unused = format!("unused-{kills}");
            namespace.apply_generator(&unused, json!({})).await;
            env.proxy().cut_at(write, lost);
            tokio::join!(create_and_delete(&namespace, &unused), async {
                env.proxy().wait_until_cut().await;
                env.webhook.kill().await;
                env.proxy().restore();
                env.restart_webhook().await;
            });
        }
    }
    kills
}

#[testkit::test]
async fn a_leader_killed_at_any_write_leaves_no_partial_work() {
    let flags = ["--unused-grace=2s", "--unused-notice=2s"];
    let mut env = TestEnv::leading_through_proxy(&flags, token_lifetime(12)).await;
    let namespace = env.team_a.namespace.clone();
    let used = pull_secret_name(&namespace.create_pod(&pod("used", "contoso")).await);
    let uids = async || {
        let owner = namespace.pull_secret(&used).await;
        let secret = namespace.secrets().get(&used).await.unwrap();
        (owner.uid(), secret.uid())
    };
    let before = uids().await;
    let start = Timestamp::now();
    let kills = kill_at_each_write(&mut env).await;
    eventually("only the used pull secret is left, with a token", async || {
        let all = namespace.list_pull_secrets().await;
        let [only] = &all[..] else {
            return None;
        };
        let status = only.status.as_ref()?;
        assert_eq!(only.name_any(), used);
        (status.is_ready() && status.expiration_time.as_ref()?.0 > Timestamp::now()).then_some(())
    })
    .await;
    assert_eq!(uids().await, before, "neither object was recreated");
    eventually("no Secret without an owner is left", async || {
        let all = namespace.secrets().list(&ListParams::default()).await.unwrap();
        (all.items.iter().map(ResourceExt::name_any).eq([used.clone()])).then_some(())
    })
    .await;
    // One token for each renewal, one for each new pull secret, and after each kill at most one more for each of both.
    let renewals = Timestamp::now().duration_since(start).as_secs() as usize / 8 + 1;
    let calls = env.azure.calls(Endpoint::EntraToken);
    assert!(
        calls <= renewals + kills + 2 * kills,
        "{calls} tokens for {renewals} renewals"
    );
}
