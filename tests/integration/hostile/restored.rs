//! Pull secrets that are deleted under live Pods, and Pods that go before what they complain of is repaired.

use super::{
    bears,
    upkeep::{after_renewal, delete_pod, missing, post},
};
use crate::{
    gate::Held,
    site::{Site, eventually, pod, pull_secret_name, pull_secret_names},
};
use futures::{StreamExt, stream};
use http::Method;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::json;
use std::collections::BTreeSet;

/// Finding M7: hundreds of pull secrets are deleted at the same moment, and each is restored.
#[tokio::test(flavor = "multi_thread")]
async fn pull_secrets_that_are_deleted_in_bulk_under_live_pods_all_come_back() {
    const PODS: usize = 15;
    const NAMED: usize = 16;
    let flags = [
        "--renewal-rate=500",
        "--renewal-concurrency=100",
        "--max-pull-secrets-per-namespace=2000",
        "--log-level=info",
    ];
    let site = Site::leading_through_a_gate(&flags, |_| ()).await;
    let namespace = &site.a.namespace;
    let made = stream::iter(0..PODS * NAMED).map(async |n| {
        site.generator(namespace, &format!("g-{n}"), json!({})).await;
    });
    made.buffer_unordered(16).collect::<()>().await;
    let named = stream::iter(0..PODS).map(async |n| {
        let references: Vec<_> = (n * NAMED..(n + 1) * NAMED).map(|n| format!("g-{n}")).collect();
        let annotation = references.join(",");
        // As a controller would have it, whatever the API server says to so many at once.
        let pod = eventually("the Pod is admitted", async || {
            let pod = pod(&format!("app-{n}"), &annotation);
            let pods = site.pods(namespace);
            pods.create(&Default::default(), &pod).await.ok()
        });
        pull_secret_names(&pod.await)
    });
    let named: Vec<_> = named.buffer_unordered(4).collect().await;
    let named: BTreeSet<_> = named.into_iter().flatten().collect();
    assert_eq!(named.len(), PODS * NAMED);
    let ready = async || {
        let all = site.pull_secrets(namespace).list(&ListParams::default()).await;
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
        site.gate().hold(Held::Watch("acrpullsecrets".to_owned()));
        let (all, of_all) = (DeleteParams::default(), ListParams::default());
        let gone = site
            .pull_secrets(namespace)
            .delete_collection(&all, &of_all)
            .await;
        gone.unwrap();
        site.gate().expire(&["acrpullsecrets"]);
        site.gate().let_go();
        eventually("all are restored", async || {
            (ready().await.len() == named.len()).then_some(())
        })
        .await;
    };
    bears(&site, &[&site.webhook], attempt).await;
    let restored: BTreeSet<_> = ready().await.iter().map(ResourceExt::name_any).collect();
    assert_eq!(restored, named);
}

/// Finding H4 (c): a Pod goes while its complaint is looked into. Nothing is repaired, and nothing says so.
#[tokio::test(flavor = "multi_thread")]
async fn the_complaint_of_a_pod_that_has_gone_repairs_nothing() {
    let site = Site::leading_through_a_gate(&[], |_| ()).await;
    let namespace = &site.a.namespace;
    let name = pull_secret_name(&site.create(namespace, &pod("going", "contoso")).await);
    let says = |words: &str| {
        let log = site.webhook.log();
        let about = |line: &&String| line.contains(words) && line.contains(namespace.as_str());
        log.iter().filter(about).count()
    };
    let attempt = async {
        let at = after_renewal(&site, namespace, &name).await;
        let path = format!("/api/v1/namespaces/{namespace}/pods/going");
        site.gate().hold(Held::Path(Method::GET, path));
        post(&site, namespace, missing((namespace, "going"), &name, at)).await;
        site.gate().is_holding().await;
        delete_pod(&site, namespace, "going").await;
        site.gate().let_go();
        let (repaired, nothing) = eventually("it has been looked into", async || {
            let repaired = says("pull secret repaired");
            let nothing = says("no Pod confirms that it needs a repair");
            (repaired + nothing > 0).then_some((repaired, nothing))
        })
        .await;
        assert_eq!((repaired, nothing), (0, 1));
    };
    bears(&site, &[&site.webhook], attempt).await;
    let (_, metrics) = site.webhook.admin_get("/metrics").await;
    assert!(
        !metrics.contains("renewals_total{outcome=\"Repaired\""),
        "{metrics}"
    );
    assert_eq!(
        site.metric("renewals_total{outcome=\"NothingToDo\",reason=\"Ok\"}")
            .await,
        1
    );
}
