//! The leader dies between any two of its writes.

use azure_emulator::Endpoint;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use testkit::{
    api_proxy::{Lost, Write},
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name},
};

/// A Pod that comes, as a controller would have it, as often as it is refused, and goes at once: every write happens.
async fn comes_and_goes(pods: Api<Pod>, name: String) {
    eventually("the Pod is admitted", async || {
        pods.create(&PostParams::default(), &pod(&name, &name)).await.ok()
    })
    .await;
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete(&name, &at_once).await.unwrap();
}

#[testkit::test]
async fn a_leader_killed_at_any_of_its_writes_leaves_nothing_half_done() {
    let mut env = TestEnv::leading_through_proxy(&["--unused-grace=2s", "--unused-notice=2s"], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    })
    .await;
    let namespace = env.team_a.namespace.clone();
    let staying = pull_secret_name(&namespace.create_pod(&pod("staying", "contoso")).await);
    let uids = async |env: &TestEnv| {
        let owner = namespace.pull_secret(&staying).await;
        let secret = namespace.secrets().get(&staying).await.unwrap();
        (owner.uid(), secret.uid())
    };
    let before = uids(&env).await;
    let start = Timestamp::now();
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
            let going = format!("going-{kills}");
            namespace.apply_generator(&going, json!({})).await;
            env.proxy().cut_at(write, lost);
            tokio::join!(comes_and_goes(namespace.pods(), going), async {
                env.proxy().wait_until_cut().await;
                env.webhook.kill().await;
                env.proxy().restore();
                env.restart_webhook().await;
            });
        }
    }
    eventually(
        "what is in use has a token, and what is not is gone",
        async || {
            let all = namespace
                .pull_secrets()
                .list(&ListParams::default())
                .await
                .unwrap();
            let [only] = &all.items[..] else {
                return None;
            };
            let status = only.status.as_ref()?;
            assert_eq!(only.name_any(), staying);
            (status.is_ready() && status.expiration_time.as_ref()?.0 > Timestamp::now()).then_some(())
        },
    )
    .await;
    assert_eq!(uids(&env).await, before, "neither was ever made anew");
    let secrets = namespace.api::<Secret>();
    eventually("no Secret has lost its owner", async || {
        let all = secrets.list(&ListParams::default()).await.unwrap();
        (all.items.iter().map(ResourceExt::name_any).eq([staying.clone()])).then_some(())
    })
    .await;
    // One token a renewal, one for each that came, and of each kill at most one more for each of the two.
    let renewals = Timestamp::now().duration_since(start).as_secs() as usize / 8 + 1;
    let calls = env.azure.calls(Endpoint::EntraToken);
    assert!(
        calls <= renewals + kills + 2 * kills,
        "{calls} tokens for {renewals} renewals"
    );
}
