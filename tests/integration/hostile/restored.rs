//! Pull secrets that are deleted under live Pods, and Pods that go before what they complain of is repaired.

use super::{
    bears,
    upkeep::{after_renewal, delete_pod, missing, post},
};
use futures::{StreamExt, stream};
use http::Method;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use std::collections::BTreeSet;
use testkit::{
    api_proxy::Held,
    env::TestEnv,
    eventually,
    objects::{pod, pull_secret_name, pull_secret_names},
};

/// Finding M7: hundreds of pull secrets are deleted at the same moment, and each is restored.
#[testkit::test]
async fn pull_secrets_that_are_deleted_in_bulk_under_live_pods_all_come_back() {
    const PODS: usize = 15;
    const NAMED: usize = 16;
    let flags = [
        "--renewal-rate=500",
        "--renewal-concurrency=100",
        "--max-pull-secrets-per-namespace=2000",
        "--log-level=info",
    ];
    let env = TestEnv::leading_through_proxy(&flags, |_| ()).await;
    let namespace = &env.team_a.namespace;
    let made = stream::iter(0..PODS * NAMED).map(async |n| {
        namespace.apply_generator(&format!("g-{n}"), json!({})).await;
    });
    made.buffer_unordered(16).collect::<()>().await;
    let named = stream::iter(0..PODS).map(async |n| {
        let references: Vec<_> = (n * NAMED..(n + 1) * NAMED).map(|n| format!("g-{n}")).collect();
        let annotation = references.join(",");
        // As a controller would have it, whatever the API server says to so many at once.
        let pod = eventually("the Pod is admitted", async || {
            let pod = pod(&format!("app-{n}"), &annotation);
            let pods = namespace.pods();
            pods.create(&Default::default(), &pod).await.ok()
        });
        pull_secret_names(&pod.await)
    });
    let named: Vec<_> = named.buffer_unordered(4).collect().await;
    let named: BTreeSet<_> = named.into_iter().flatten().collect();
    assert_eq!(named.len(), PODS * NAMED);
    let ready = async || {
        let all = namespace.pull_secrets().list(&ListParams::default()).await;
        let ready = all.unwrap().items.into_iter().filter(|owner| {
            let status = owner.status.as_ref();
            status.is_some_and(|status| status.is_ready())
        });
        ready.collect::<Vec<_>>()
    };
    eventually("all are there", async || {
        (ready().await.len() == named.len()).then_some(())
    })
    .await;
    let attempt = async {
        // The replica finds at its next list that all have gone.
        env.proxy().hold(Held::Watch("acrpullsecrets".to_owned()));
        let (all, of_all) = (DeleteParams::default(), ListParams::default());
        let gone = namespace.pull_secrets().delete_collection(&all, &of_all).await;
        gone.unwrap();
        env.proxy().expire_watches(&["acrpullsecrets"]);
        env.proxy().release();
        eventually("all are restored", async || {
            (ready().await.len() == named.len()).then_some(())
        })
        .await;
    };
    bears(&env, &[&env.webhook], attempt).await;
    let restored: BTreeSet<_> = ready().await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(restored, named);
}

/// Finding H4 (c): a Pod goes while its complaint is looked into. Nothing is repaired, and nothing says so.
#[testkit::test]
async fn the_complaint_of_a_pod_that_has_gone_repairs_nothing() {
    let env = TestEnv::leading_through_proxy(&[], |_| ()).await;
    let namespace = &env.team_a.namespace;
    let name = pull_secret_name(&namespace.create_pod(&pod("going", "contoso")).await);
    let says = |words: &str| {
        let log = env.webhook.log();
        let about = |line: &&String| line.contains(words) && line.contains(namespace.name());
        log.iter().filter(about).count()
    };
    let attempt = async {
        let at = after_renewal(&env, namespace, &name).await;
        let path = format!("/api/v1/namespaces/{namespace}/pods/going");
        env.proxy().hold(Held::Path(Method::GET, path));
        post(&env, namespace, missing((namespace.name(), "going"), &name, at)).await;
        env.proxy().wait_until_holding().await;
        delete_pod(&env, namespace, "going").await;
        env.proxy().release();
        let (repaired, nothing) = eventually("it has been looked into", async || {
            let repaired = says("pull secret repaired");
            let nothing = says("no Pod confirms that it needs a repair");
            (repaired + nothing > 0).then_some((repaired, nothing))
        })
        .await;
        assert_eq!((repaired, nothing), (0, 1));
    };
    bears(&env, &[&env.webhook], attempt).await;
    let (_, metrics) = env.webhook.admin_get("/metrics").await;
    assert!(
        !metrics.contains("renewals_total{outcome=\"Repaired\""),
        "{metrics}"
    );
    assert_eq!(
        env.webhook
            .metric("renewals_total{outcome=\"NothingToDo\",reason=\"Ok\"}")
            .await,
        1
    );
}
