//! The leader dies between any two of its writes.

use super::{
    gate::{Lost, Write},
    site::{Site, eventually, pod, pull_secret_name},
};
use azure_emulator::Endpoint;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

/// A Pod that comes, as a controller would have it, as often as it is refused, and goes at once: every write happens.
async fn comes_and_goes(pods: Api<Pod>, name: String) {
    eventually("the Pod is admitted", async || {
        pods.create(&PostParams::default(), &pod(&name, &name)).await.ok()
    })
    .await;
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete(&name, &at_once).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_at_any_of_its_writes_leaves_nothing_half_done() {
    let mut site = Site::leading_through_a_gate(&["--unused-grace=2s", "--unused-notice=2s"], |world| {
        world["tokens"] = json!({"acrRefreshLifetime": "12s"});
    })
    .await;
    let namespace = site.a.namespace.clone();
    let staying = pull_secret_name(&site.create(&namespace, &pod("staying", "contoso")).await);
    let uids = async |site: &Site| {
        let owner = site.pull_secrets(&namespace).get(&staying).await.unwrap();
        let secret = site.secrets(&namespace).get(&staying).await.unwrap();
        (owner.uid(), secret.uid())
    };
    let before = uids(&site).await;
    let start = Timestamp::now();
    let mut kills = 0;
    for write in [
        Write::Owner,
        Write::Secret,
        Write::Status,
        Write::Mark,
        Write::Delete,
    ] {
        for lost in [Lost::Request, Lost::Answer] {
            kills += 1;
            let going = format!("going-{kills}");
            site.generator(&namespace, &going, json!({})).await;
            site.gate().cut_at(write, lost);
            tokio::join!(comes_and_goes(site.pods(&namespace), going), async {
                site.gate().is_cut().await;
                site.webhook.kill().await;
                site.gate().mend();
                site.restart_webhook().await;
            });
        }
    }
    eventually(
        "what is in use has a token, and what is not is gone",
        async || {
            let all = site
                .pull_secrets(&namespace)
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
    assert_eq!(uids(&site).await, before, "neither was ever made anew");
    let secrets = Api::<Secret>::namespaced(site.client.clone(), &namespace);
    eventually("no Secret has lost its owner", async || {
        let all = secrets.list(&ListParams::default()).await.unwrap();
        (all.items.iter().map(ResourceExt::name_any).eq([staying.clone()])).then_some(())
    })
    .await;
    // One token a renewal, one for each that came, and of each kill at most one more for each of the two.
    let renewals = Timestamp::now().duration_since(start).as_secs() as usize / 8 + 1;
    let calls = site.calls(Endpoint::EntraToken);
    assert!(
        calls <= renewals + kills + 2 * kills,
        "{calls} tokens for {renewals} renewals"
    );
}
